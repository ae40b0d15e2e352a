//! The metrics of a relay over HTTP, for Prometheus and whoever reads its format (docs/metrics.md).
//!
//! A thread of its own answers `/metrics` and `/healthz`. Workers add their plain counters up when they are asked,
//! between two turns, as for the command `G`; the recorder's figures are read without waiting for a disk.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};

mod exposition;
mod figures;

pub(crate) use figures::Sources;

/// A place where metrics will be served.
#[derive(Debug)]
pub(crate) struct Metrics(TcpListener);

impl Metrics {
    /// Takes the address; connections wait until [`Self::start`].
    pub(crate) fn bind(addr: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(addr)?;
        listener.set_nonblocking(true)?;
        Ok(Self(listener))
    }

    /// Starts the thread that answers from `sources`.
    pub(crate) fn start(self, sources: Sources) -> io::Result<MetricsThread> {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        let listener = {
            let _context = runtime.enter();
            tokio::net::TcpListener::from_std(self.0)?
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::Builder::new().name("metrics".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, sources) => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(MetricsThread { stop: Some(stop), thread: Some(thread) })
    }
}

/// The thread that serves metrics. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct MetricsThread {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for MetricsThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the metrics panicked");
        }
    }
}

async fn accept(listener: tokio::net::TcpListener, sources: Sources) {
    let sources = Arc::new(sources);
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok((connection, _)) = listener.accept().await else {
            // Out of descriptors: others may give some back.
            sleep(ACCEPT_RETRY_AFTER).await;
            continue;
        };
        // Beyond that, connections are closed at once.
        if let Ok(slot) = Arc::clone(&slots).try_acquire_owned() {
            let sources = Arc::clone(&sources);
            tokio::spawn(async move {
                if timeout(CONNECTION_TIME, serve(connection, sources)).await.is_err() {
                    tracing::debug!("a reader of metrics took too long");
                }
                drop(slot);
            });
        }
    }
}

/// Answers one request.
async fn serve(connection: TcpStream, sources: Arc<Sources>) {
    let service = service_fn(move |request| {
        let sources = Arc::clone(&sources);
        async move { Ok::<_, Infallible>(answer(&request, &sources).await) }
    });
    let served = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(connection), service);
    if let Err(error) = served.await {
        tracing::debug!("a reader of metrics went away: {error}");
    }
}

async fn answer(request: &Request<Incoming>, sources: &Sources) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered\n");
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    match request.uri().path() {
        "/metrics" => match timeout(GATHER_TIME, sources.figures()).await {
            Ok(Some(figures)) => {
                let mut page = Response::new(Full::from(exposition::page(figures)));
                page.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(exposition::CONTENT_TYPE));
                page
            }
            Ok(None) | Err(_) => no_answer(),
        },
        "/healthz" => match timeout(GATHER_TIME, sources.figures()).await {
            Ok(Some(figures)) if figures.is_draining => text(StatusCode::OK, "ok, draining\n"),
            Ok(Some(_)) => text(StatusCode::OK, "ok\n"),
            Ok(None) | Err(_) => no_answer(),
        },
        _ => text(StatusCode::NOT_FOUND, "there is /metrics and /healthz\n"),
    }
}

fn no_answer() -> Response<Full<Bytes>> {
    text(StatusCode::SERVICE_UNAVAILABLE, "a media thread does not answer\n")
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// Connections at a time. One reader needs one.
const CONNECTIONS_MAX: usize = 32;
/// How long a connection may take in all.
const CONNECTION_TIME: Duration = Duration::from_secs(10);
/// How long the media threads may take to tell their figures.
const GATHER_TIME: Duration = Duration::from_secs(5);
/// How long to wait when no connection can be accepted.
const ACCEPT_RETRY_AFTER: Duration = Duration::from_millis(100);
