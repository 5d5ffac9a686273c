"""A list of ten things through a template that extends another, and a few bytes."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

ENTRIES = [{"name": f"Entry {number}", "price": number * 7} for number in range(1, 11)]


def listing(request: HttpRequest) -> HttpResponse:
    """Render the page."""
    return render(request, "pages/listing.html", {"title": "A & B", "entries": ENTRIES})


def short(_request: HttpRequest) -> HttpResponse:
    """Answer with 13 bytes."""
    return HttpResponse("Hello, World!", content_type="text/plain")
