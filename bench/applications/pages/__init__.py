"""A Django project in one application: what startproject writes, cut to what one page needs."""
