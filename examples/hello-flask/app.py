"""Flask's first page: `daemun serve app:app`."""

from flask import Flask

app = Flask(__name__)


@app.get("/")
def hello():
    return "<p>Hello from Flask behind daemun.</p>"
