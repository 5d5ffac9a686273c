"""Web servers and proxies: files, CGI programs, one hop, HTTP/2 over TLS."""

from __future__ import annotations

from pathlib import Path

from .setting import Place, Setting, files_open, is_root, program

# Connections to an upstream that are kept: more than any scenario has at once.
KEPT = 256

NGINX = """
daemon off;
{user}
worker_processes {loops};
worker_rlimit_nofile {files_open};
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections {most}; }}
http {{
    types {{ text/plain txt; }}
    gzip_static on;
    access_log {log};
    sendfile on;
    open_file_cache max=1000 inactive=60s;
    open_file_cache_valid 60s;
    # Its default closes a connection after 1000 requests, and one that is idle for 75 seconds.
    keepalive_requests 1000000000;
    keepalive_timeout 300s;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {upstream}
    server {{
        listen 127.0.0.1:{port}{secure};
        {handler}
    }}
}}
"""
NGINX_HOP = """
        location / {
            proxy_pass http://bench;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
        }
"""


def nginx(setting: Setting, place: Place) -> list[str]:
    """For files with its cache of open files; as a proxy with kept connections."""
    handler, upstream = f"root {setting.files};", ""
    if place.scenario.hop:
        handler = NGINX_HOP
        upstream = f"upstream bench {{ server 127.0.0.1:{setting.upstream}; keepalive {KEPT}; }}"
    if place.scenario.secure:
        handler += f"ssl_certificate {setting.certificate}/cert.pem; ssl_certificate_key {setting.certificate}/key.pem;"
    text = NGINX.format(
        # As root its workers would become a user who cannot enter this folder.
        user="user root;" if is_root() else "",
        loops=setting.loops,
        folder=place.folder,
        log=f"{place.folder}/access.log combined" if setting.logs else "off",
        port=place.port,
        # It hangs up on idle ones when a sixteenth of its room is left.
        most=setting.most * 5 // 4,
        files_open=files_open(setting),
        secure=" ssl http2" if place.scenario.secure else "",
        upstream=upstream,
        handler=handler,
    )
    file = place.write("nginx.conf", text.splitlines())
    return [program("nginx"), "-e", f"{place.folder}/error.log", "-c", str(file)]


def nginx_upstream(port: int, folder: Path) -> list[str]:
    """The server behind the proxies: it answers at once, out of its configuration."""
    text = NGINX.format(
        user="user root;" if is_root() else "",
        loops=1,
        folder=folder,
        log="off",
        port=port,
        most=4096,
        files_open=8192,
        secure="",
        upstream="",
        handler='location / { default_type text/plain; return 200 "Hello, World!"; }',
    )
    file = folder / "nginx.conf"
    file.write_text(text, "utf-8")
    return [program("nginx"), "-e", f"{folder}/error.log", "-c", str(file)]


def lighttpd(setting: Setting, place: Place) -> list[str]:
    """For files, CGI programs and as a proxy, which opens a connection for each request."""
    lines = [
        'server.bind = "127.0.0.1"',
        f"server.port = {place.port}",
        f'server.errorlog = "{place.folder}/error.log"',
        'mimetype.assign = (".txt" => "text/plain")',
        # Its default closes a connection after 1000 requests, and one that is idle for five seconds.
        "server.max-keep-alive-requests = 65535",
        "server.max-keep-alive-idle = 300",
        f"server.max-worker = {setting.loops if setting.loops > 1 else 0}",
        f"server.max-fds = {files_open(setting)}",
        f"server.max-connections = {setting.most}",
        *_lighttpd_handler(setting, place),
    ]
    if place.scenario.secure:
        lines += ['server.modules += ("mod_openssl")', 'ssl.engine = "enable"']
        lines += [f'ssl.pemfile = "{setting.certificate}/cert.pem"', f'ssl.privkey = "{setting.certificate}/key.pem"']
    if setting.logs:
        lines += ['server.modules += ("mod_accesslog")', f'accesslog.filename = "{place.folder}/access.log"']
    return [program("lighttpd"), "-D", "-f", str(place.write("lighttpd.conf", lines))]


def _lighttpd_handler(setting: Setting, place: Place) -> list[str]:
    if place.scenario.hop:
        server = f'proxy.server = ("" => (("host" => "127.0.0.1", "port" => {setting.upstream})))'
        return ['server.document-root = "/var/empty"', 'server.modules += ("mod_proxy")', server]
    if place.scenario.script:
        return [
            f'server.document-root = "{setting.scripts}"',
            'server.modules += ("mod_alias", "mod_cgi")',
            f'alias.url = ("/cgi-bin/" => "{setting.scripts}/")',
            '$HTTP["url"] =~ "^/cgi-bin/" { cgi.assign = ("" => "") }',
        ]
    return [f'server.document-root = "{setting.files}"']


def h2o(setting: Setting, place: Place) -> list[str]:
    """For files, which it keeps open by itself, and as a proxy."""
    log = [f"access-log: {place.folder}/access.log"] if setting.logs else []
    # As root it would become a user who cannot enter this folder.
    user = ["user: root"] if is_root() else []
    tls = [
        "  ssl:",
        f"    certificate-file: {setting.certificate}/cert.pem",
        f"    key-file: {setting.certificate}/key.pem",
    ]
    lines = [
        f"num-threads: {setting.loops}",
        f"max-connections: {setting.most}",
        # Its default closes a connection that is idle for ten seconds.
        "http1-request-timeout: 300",
        "listen:",
        "  host: 127.0.0.1",
        f"  port: {place.port}",
        *(tls if place.scenario.secure else []),
        f"error-log: {place.folder}/error.log",
        "file.send-compressed: ON",
        *log,
        *user,
        "hosts:",
        "  default:",
        "    paths:",
        "      /:",
    ]
    if place.scenario.hop:
        lines += [f"        proxy.reverse.url: http://127.0.0.1:{setting.upstream}/", "        proxy.preserve-host: ON"]
    else:
        lines.append(f"        file.dir: {setting.files}")
    return [program("h2o"), "-m", "worker", "-c", str(place.write("h2o.yaml", lines))]


def caddy(setting: Setting, place: Place) -> list[str]:
    """By a Caddyfile; the Go runtime has as many processors as others have event loops."""
    if place.scenario.hop:
        # Its default keeps 32 connections, fewer than are asked over at once.
        transport = f"transport http {{\n keepalive_idle_conns_per_host {KEPT}\n }}"
        handler = [f"reverse_proxy 127.0.0.1:{setting.upstream} {{", transport, "}"]
    else:
        handler = [f"root * {setting.files}", "file_server {", "precompressed gzip", "}"]
    scheme = "https" if place.scenario.secure else "http"
    tls = f"tls {setting.certificate}/cert.pem {setting.certificate}/key.pem"
    log = ["log {", f"output file {place.folder}/access.log", "}"] if setting.logs else []
    lines = [
        "{",
        "admin off",
        "auto_https off",
        f"storage file_system {place.folder}/caddy",
        "log {\nlevel WARN\n}",
        "}",
        f"{scheme}://127.0.0.1:{place.port} {{",
        "bind 127.0.0.1",
        tls if place.scenario.secure else "",
        *log,
        *handler,
        "}",
    ]
    file = place.write("Caddyfile", lines)
    environment = ["env", f"GOMAXPROCS={setting.loops}", f"HOME={place.folder}"]
    return [*environment, program("caddy"), "run", "--config", str(file), "--adapter", "caddyfile"]


def haproxy(setting: Setting, place: Place) -> list[str]:
    """As a proxy: the timeouts that its documentation asks for, all else by default, connections kept and shared."""
    log = ["log global", "option httplog"] if setting.logs else []
    lines = [
        "global",
        f"  nbthread {setting.loops}",
        f"  maxconn {min(setting.most, 4096)}",
        "  log stdout format raw local0" if setting.logs else "",
        "defaults",
        "  mode http",
        *(f"  {line}" for line in log),
        "  option forwardfor",
        *("  timeout connect 5s", "  timeout client 50s", "  timeout server 50s", "  timeout http-request 10s"),
        "frontend in",
        f"  bind 127.0.0.1:{place.port}",
        "  default_backend bench",
        "backend bench",
        f"  server one 127.0.0.1:{setting.upstream}",
    ]
    return [program("haproxy"), "-db", "-f", str(place.write("haproxy.cfg", lines))]


APACHE = """
ServerName localhost
ServerRoot {folder}
DefaultRuntimeDir {folder}
Listen 127.0.0.1:{port}
PidFile {folder}/apache.pid
ErrorLog {folder}/error.log
{modules}
{user}
StartServers 1
ServerLimit 1
ThreadsPerChild 64
MaxRequestWorkers 64
KeepAlive On
MaxKeepAliveRequests 0
{handler}
{log}
"""
# Its "combined".
APACHE_LOG = r"""CustomLog {folder}/access.log "%h %l %u %t \"%r\" %>s %b \"%{{Referer}}i\" \"%{{User-Agent}}i\"""" '"'
APACHE_MODULES = ["mpm_event", "authz_core", "unixd"]
APACHE_SCRIPTS = """
ScriptSock {folder}/cgid
ScriptAlias /cgi-bin/ {scripts}/
<Directory {scripts}>
    Require all granted
</Directory>
"""
APACHE_FILES = """
DocumentRoot {files}
<Directory {files}>
    AllowOverride None
    Require all granted
</Directory>
"""
APACHE_TLS = """
Protocols h2 http/1.1
SSLEngine on
SSLCertificateFile {certificate}/cert.pem
SSLCertificateKeyFile {certificate}/key.pem
"""


def apache(setting: Setting, place: Place) -> list[str]:
    """For files, and with mod_cgid, whose process forks for each request; nothing loaded that is not needed."""
    names = [*APACHE_MODULES]
    if place.scenario.script:
        names += ["alias", "cgid"]
        handler = APACHE_SCRIPTS.format(folder=place.folder, scripts=setting.scripts)
    else:
        handler = APACHE_FILES.format(files=setting.files)
    if place.scenario.secure:
        names += ["socache_shmcb", "ssl", "http2"]
        handler += APACHE_TLS.format(certificate=setting.certificate)
    if setting.logs:
        names.append("log_config")
    folder = Path("/usr/lib/apache2/modules")
    modules = [f"LoadModule {name}_module {folder}/mod_{name}.so" for name in names]
    # Debian has compiled some of them in.
    modules = [line for line in modules if Path(line.rpartition(" ")[2]).exists()]
    text = APACHE.format(
        folder=place.folder,
        port=place.port,
        modules="\n".join(modules),
        user="User daemon\nGroup daemon" if is_root() else "",
        handler=handler,
        log=APACHE_LOG.format(folder=place.folder) if setting.logs else "",
    )
    file = place.write("apache.conf", text.splitlines())
    return [program("apache2"), "-DFOREGROUND", "-f", str(file)]
