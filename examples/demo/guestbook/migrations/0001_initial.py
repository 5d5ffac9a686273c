"""The one table."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """Makes Entry."""

    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            name="Entry",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=60)),
                ("message", models.CharField(max_length=280)),
                ("written", models.DateTimeField(auto_now_add=True)),
            ],
            options={"ordering": ("-written", "-pk"), "verbose_name_plural": "entries"},
        )
    ]
