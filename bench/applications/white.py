"""Files by whitenoise, as its documentation wraps an application; the folder stands in BENCH_FILES."""

import os

import plain
from whitenoise import WhiteNoise

application = WhiteNoise(plain.hello, root=os.environ["BENCH_FILES"], max_age=60)
