"""One page: the form and what was written before."""

import django
from django.forms import ModelForm, Textarea, TextInput
from django.shortcuts import redirect, render

from guestbook.models import Entry

SHOWN = 20


class EntryForm(ModelForm):
    """Name and message, in Bootstrap's clothes."""

    class Meta:
        model = Entry
        fields = ("name", "message")
        widgets = {
            "name": TextInput(attrs={"class": "form-control", "autocomplete": "name"}),
            "message": Textarea(attrs={"class": "form-control", "rows": 2}),
        }


def guestbook(request):
    """Show the book; on POST write into it, then send the browser back, so that reloading writes nothing twice."""
    form = EntryForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        form.save()
        return redirect("guestbook")
    context = {"form": form, "entries": Entry.objects.all()[:SHOWN], "django": django.get_version()}
    return render(request, "guestbook/page.html", context, status=400 if form.errors else 200)
