//! Everything that is counted, as Prometheus reads it.

use crate::control::message::{AppStatus, Status};
use crate::telemetry::metrics::{Distribution, Exposition, Kind, RouteFigures, Snapshot, gather};
use crate::telemetry::traces;

/// The text and its content type.
pub(super) fn write(status: &Status, ready: bool, is_open_metrics: bool) -> (String, &'static str) {
    let snapshot = gather();
    let mut out = Exposition::new(is_open_metrics);
    server(&mut out, status, ready);
    requests(&mut out, &snapshot);
    connections(&mut out, &snapshot);
    applications(&mut out, status);
    out.finish()
}

fn server(out: &mut Exposition, status: &Status, ready: bool) {
    out.family("daemun_build", Kind::Gauge, "Always 1; the version is in its label.");
    out.sample(&[("version", &status.version)], 1);
    out.family("daemun_uptime_seconds", Kind::Gauge, "Since the server began to serve.");
    out.sample(&[], status.uptime);
    out.family("daemun_ready", Kind::Gauge, "Whether /readyz says 200.");
    out.sample(&[], u8::from(ready));
    out.family("daemun_front_restarts", Kind::Counter, "How often the web server's process had to be started again.");
    out.sample(&[], status.front.restarts);
    let Some(reload) = &status.last_reload else { return };
    out.family("daemun_last_reload_succeeded", Kind::Gauge, "Whether the last reload came through.");
    out.sample(&[], u8::from(reload.succeeded));
    out.family("daemun_last_reload_timestamp_seconds", Kind::Gauge, "When the last reload was over.");
    out.sample(&[], reload.at);
}

fn requests(out: &mut Exposition, snapshot: &Snapshot) {
    out.family("daemun_requests", Kind::Counter, "Requests that were answered, by class of status.");
    for (labels, figures) in &snapshot.routes {
        for (method, class, count) in &figures.requests {
            let class = format!("{class}xx");
            let labels = [("route", &*labels.route), ("app", &*labels.app), ("method", method), ("status", &*class)];
            out.sample(&labels, count);
        }
    }
    out.family("daemun_response_body_bytes", Kind::Counter, "Bytes of bodies that clients took.");
    for (labels, figures) in &snapshot.routes {
        out.sample(&[("route", &labels.route), ("app", &labels.app)], figures.sent);
    }
    let histogram = |out: &mut Exposition, name, help, of: fn(&RouteFigures) -> &Distribution| {
        out.family(name, Kind::Histogram, help);
        for (labels, figures) in snapshot.routes.iter().filter(|(_, figures)| of(figures).count() > 0) {
            out.distribution(&[("route", &labels.route), ("app", &labels.app)], of(figures));
        }
    };
    let name = "daemun_request_duration_seconds";
    histogram(out, name, "From the complete head to the last byte of the answer.", |figures| &figures.duration);
    histogram(out, "daemun_queue_seconds", "Waiting for a free worker.", |figures| &figures.queue);
    let name = "daemun_application_seconds";
    histogram(out, name, "In the application, to the first byte.", |figures| &figures.application);
}

fn connections(out: &mut Exposition, snapshot: &Snapshot) {
    out.family("daemun_connections", Kind::Gauge, "Connections of clients that are open.");
    out.sample(&[], snapshot.connections());
    out.family("daemun_connections_accepted", Kind::Counter, "Connections of clients that were accepted.");
    out.sample(&[], snapshot.opened);
    out.family("daemun_tls_handshakes", Kind::Counter, "TLS handshakes.");
    out.sample(&[("result", "ok")], snapshot.handshakes);
    out.sample(&[("result", "failed")], snapshot.failed_handshakes);
    out.family("daemun_received_bytes", Kind::Counter, "Bytes of requests that were answered, heads included.");
    out.sample(&[], snapshot.received);
    out.family("daemun_log_lines_lost", Kind::Counter, "Lines of the access log that nobody took.");
    out.sample(&[], snapshot.lost_lines);
    let (sent, dropped) = traces::counters();
    out.family("daemun_trace_spans_sent", Kind::Counter, "Spans of traces that a collector took.");
    out.sample(&[], sent);
    out.family("daemun_trace_spans_dropped", Kind::Counter, "Spans of traces that nobody took.");
    out.sample(&[], dropped);
}

fn applications(out: &mut Exposition, status: &Status) {
    let gauge = |out: &mut Exposition, name, help, of: &dyn Fn(&AppStatus) -> u64| {
        out.family(name, Kind::Gauge, help);
        for (name, app) in &status.apps {
            out.sample(&[("app", name)], of(app));
        }
    };
    gauge(out, "daemun_queue_length", "Requests that wait for a worker.", &|app| app.queued);
    gauge(out, "daemun_workers_wanted", "Worker processes that there should be.", &|app| app.processes.into());
    gauge(out, "daemun_workers", "Worker processes that take requests.", &|app| {
        app.workers.iter().filter(|worker| worker.connected && !worker.leaving).count() as u64
    });
    gauge(out, "daemun_threads_busy", "Threads with a request.", &|app| app.busy);
    gauge(out, "daemun_threads_idle", "Threads without a request.", &|app| app.idle);
    out.family("daemun_replays", Kind::Counter, "Requests that were sent to a second worker.");
    for (name, app) in &status.apps {
        out.sample(&[("app", name)], app.replays);
    }
    out.family("daemun_worker_restarts", Kind::Counter, "Workers that were replaced, by cause.");
    for (name, app) in &status.apps {
        for (cause, count) in &app.restarts {
            out.sample(&[("app", name), ("cause", cause)], count);
        }
    }
    out.family("daemun_worker_resident_memory_bytes", Kind::Gauge, "Memory of each worker process.");
    for (name, app) in &status.apps {
        // By place and not by process id: ids would make a new series with every restart.
        for (place, worker) in app.workers.iter().filter(|worker| !worker.leaving).enumerate() {
            if let Some(memory) = worker.memory {
                out.sample(&[("app", name), ("worker", &place.to_string())], memory);
            }
        }
    }
}
