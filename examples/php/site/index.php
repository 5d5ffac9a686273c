<!doctype html>
<html lang="en">
<title>PHP behind daemun</title>
<h1>PHP <?= PHP_VERSION ?></h1>
<p>You asked for <code><?= htmlspecialchars($_SERVER['REQUEST_URI']) ?></code>.</p>
<p><a href="/a/permalink">A permalink</a>, <a href="/media/note.txt">a file</a>.</p>
