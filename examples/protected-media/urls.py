"""Who may have which file."""

from urllib.parse import quote

from django.http import HttpRequest, HttpResponse
from django.urls import path


def enter(request: HttpRequest, name: str) -> HttpResponse:
    """Stand for a form with a password: from now on this visitor has a name."""
    request.session["name"] = name
    return HttpResponse(f"You are {name}.")


def document(request: HttpRequest, owner: str, name: str) -> HttpResponse:
    """Send a document to its owner. The content is the server's work: ranges, resuming and caching included."""
    if request.session.get("name") != owner:
        return HttpResponse("This is somebody else's.", status=403)
    answer = HttpResponse(content_type="")
    answer["X-Accel-Redirect"] = quote(f"/protected/{owner}/{name}")
    answer["Content-Disposition"] = f'inline; filename="{name}"'
    answer["Cache-Control"] = "private"
    return answer


urlpatterns = [
    path("enter/<slug:name>", enter),
    path("documents/<slug:owner>/<str:name>", document),
]
