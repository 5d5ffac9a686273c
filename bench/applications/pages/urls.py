"""A page and a short answer."""

from django.urls import path

from . import views

urlpatterns = [path("", views.listing), path("short", views.short)]
