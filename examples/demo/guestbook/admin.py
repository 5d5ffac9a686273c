"""Entries in Django's administration."""

from django.contrib import admin

from guestbook.models import Entry


@admin.register(Entry)
class EntryAdmin(admin.ModelAdmin):
    """Names, messages, and when."""

    list_display = ("name", "message", "written")
