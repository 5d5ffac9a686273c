"""daemun for Django projects. Nothing here is needed to be served; ``daemun.django.storage`` is for ``STORAGES``."""
