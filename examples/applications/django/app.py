# Django: sessions and the cache, with its own backend and with django-redis. The setting of memstore's pool, for set_many of django-redis:
#
#     transactions: per-shard
#
# pip install django redis django-redis, then REDIS_URL=redis://... python3 app.py
import os
from wsgiref.simple_server import make_server

import django
from django.conf import settings
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.redis import RedisCache
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import path

url = os.environ["REDIS_URL"]


class Cache(RedisCache):
    # One by one: Django's own sends MSET in a transaction, which keys of several shards cannot be in.
    set_many = BaseCache.set_many


settings.configure(
    SECRET_KEY="of this example",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    SESSION_ENGINE="django.contrib.sessions.backends.cache",
    CACHES={
        "default": {"BACKEND": f"{__name__}.Cache", "LOCATION": url},
        "django-redis": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": url, "KEY_PREFIX": "other"},
    },
)
django.setup()


def visit(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return JsonResponse({"visits": request.session["visits"]})


def login(request):
    request.session.cycle_key()
    return visit(request)


urlpatterns = [path("", visit), path("login", login)]

if __name__ == "__main__":
    with make_server(os.environ.get("HOST", ""), int(os.environ.get("PORT", "8000")), get_wsgi_application()) as server:
        print(server.server_port, flush=True)
        server.serve_forever()
