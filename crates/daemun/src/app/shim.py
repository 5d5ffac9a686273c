# arrives with the shim
