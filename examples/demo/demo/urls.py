"""The guestbook at the root, Django's administration beside it."""

from django.contrib import admin
from django.urls import path
from guestbook.views import guestbook

urlpatterns = [path("", guestbook, name="guestbook"), path("admin/", admin.site.urls)]
