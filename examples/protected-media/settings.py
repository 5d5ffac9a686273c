"""A project of one view, with signed cookies for its sessions and without a database."""

from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent
SECRET_KEY = "an example: make your own"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "urls"
WSGI_APPLICATION = "wsgi.application"
INSTALLED_APPS = ["django.contrib.sessions"]
MIDDLEWARE = ["django.contrib.sessions.middleware.SessionMiddleware"]
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
