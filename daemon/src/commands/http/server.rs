//! Connections: each serves one request, and has so many seconds for its headers, its body and for taking the answer. A
//! picture may take as long as it takes. A client that hangs up leaves its job in the queue.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::answer::{Answer, HttpFault};
use super::calls;
use super::guard::Guard;
use super::hub::Hub;

/// Connections at a time; others wait for one to end.
const CONNECTIONS: usize = 64;
/// How long a client may take for its headers, for its body, and to take the answer.
const HEADERS: Duration = Duration::from_secs(10);
const BODY: Duration = Duration::from_secs(60);
const ANSWER: Duration = Duration::from_secs(300);
/// Bodies that are held at a time have as many bytes together as this many of the largest.
const LARGEST_BODIES: usize = 4;
/// What a request takes beside its bytes: it bounds how many small ones wait.
const OVERHEAD: usize = 256 * 1024;
/// Bytes of headers, all together.
const HEADER_BYTES: usize = 16 * 1024;

/// What all connections share.
pub(super) struct Server {
    guard: Guard,
    hub: Arc<Hub>,
    /// The bytes of bodies that are held.
    held: Arc<AtomicUsize>,
    /// One for each connection that may be served.
    places: Arc<Semaphore>,
}

/// A body's bytes among those that are held.
struct BodyRoom {
    held: Arc<AtomicUsize>,
    bytes: usize,
}

impl BodyRoom {
    /// Room for `bytes` more where at most `most` may be held.
    fn take(held: &Arc<AtomicUsize>, bytes: usize, most: usize) -> Option<BodyRoom> {
        let room = BodyRoom { held: held.clone(), bytes };
        // What was added without success is subtracted with `room`.
        (held.fetch_add(bytes, Ordering::Relaxed) + bytes <= most).then_some(room)
    }
}

impl Drop for BodyRoom {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

async fn connection(server: Arc<Server>, stream: TcpStream, _place: OwnedSemaphorePermit) {
    if serve_one(server, stream).await == Some(Method::POST) {
        // Requests and answers with images leave megabytes.
        diffused_heap::trim();
    }
}

/// Serves a connection's request; gives its method, if one came.
async fn serve_one(server: Arc<Server>, stream: TcpStream) -> Option<Method> {
    let (answered, method) = (Notify::new(), OnceLock::new());
    let service = service_fn(|request: Request<Incoming>| {
        let (server, answered) = (server.clone(), &answered);
        let _ = method.set(request.method().clone());
        async move {
            let answer = server.answer(request).await;
            answered.notify_one();
            Ok::<Answer, Infallible>(answer)
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADERS).keep_alive(false).max_header_size(HEADER_BYTES);
    let connection = http.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // What is wrong with a connection is its client's affair.
    tokio::select! {
        ended = &mut connection => if let Err(error) = ended { log_refusal(&error) },
        () = answered.notified() => drop(timeout(ANSWER, connection).await),
    }
    method.get().cloned()
}

/// What hyper answers by itself to what is no request: the log has it.
fn log_refusal(error: &hyper::Error) {
    match error.is_parse_too_large() {
        true => info!("431 or 414: more than {HEADER_BYTES} bytes of headers, or a longer address than is taken"),
        false if error.is_parse() => info!("400: {error}"),
        false => {}
    }
}

impl Server {
    pub(super) fn new(guard: Guard, hub: Arc<Hub>) -> Arc<Server> {
        Arc::new(Server { guard, hub, held: Arc::default(), places: Arc::new(Semaphore::new(CONNECTIONS)) })
    }

    /// Takes connections and serves them, for ever.
    pub(super) async fn run(self: &Arc<Server>, listener: TcpListener) {
        loop {
            let Ok(place) = self.places.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(connection(self.clone(), stream, place))),
                Err(error) => {
                    // The process may have no file left: others may soon be closed.
                    warn!("a connection cannot be taken: {error}");
                    sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    /// Waits until there is no connection.
    pub(super) async fn idle(&self) {
        let _ = self.places.acquire_many(CONNECTIONS as u32).await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        // What is asked for is on disk nowhere; the path may be anything.
        let path: String = path.chars().filter(|c| c.is_ascii_graphic()).take(80).collect();
        match self.serve(request).await {
            Ok(answer) => {
                info!("{method} {path} {}", answer.status().as_u16());
                answer
            }
            Err(fault) if fault.status.is_server_error() => {
                warn!("{method} {path} {}: {}", fault.status.as_u16(), fault.message);
                fault.answer()
            }
            Err(fault) => {
                info!("{method} {path} {}", fault.status.as_u16());
                fault.answer()
            }
        }
    }

    async fn serve(&self, request: Request<Incoming>) -> Result<Answer, HttpFault> {
        self.guard.check(request.headers())?;
        let call = calls::find(request.method(), request.uri())?;
        // The room is held until there is an answer: while a job waits, its request is kept.
        let (body, _room) = self.body(request.into_body()).await?;
        call.answer(&self.hub, body).await
    }

    /// The whole body, and the room that it takes.
    async fn body(&self, body: Incoming) -> Result<(Bytes, BodyRoom), HttpFault> {
        let largest = self.hub.largest_request();
        let announced = body.size_hint().exact();
        let bytes = announced.map_or(largest, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        let too_large = || HttpFault::too_large(format!("the device takes requests of up to {largest} bytes"));
        if bytes > largest {
            return Err(too_large());
        }
        let busy = || HttpFault::unavailable("other requests take all the memory that there is for them; try again");
        let room =
            BodyRoom::take(&self.held, bytes + OVERHEAD, LARGEST_BODIES * (largest + OVERHEAD)).ok_or_else(busy)?;
        let slow = |_| HttpFault::new(StatusCode::REQUEST_TIMEOUT, "too_slow", "the request did not come within 60 s");
        let collected = timeout(BODY, Limited::new(body, largest).collect()).await.map_err(slow)?;
        let broken = |error: Box<dyn std::error::Error + Send + Sync>| match error.is::<LengthLimitError>() {
            true => too_large(),
            false => HttpFault::new(StatusCode::BAD_REQUEST, "broken", format!("the body is broken: {error}")),
        };
        Ok((collected.map_err(broken)?.to_bytes(), room))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_given_back() {
        let held = Arc::default();
        let rooms = [BodyRoom::take(&held, 6, 10), BodyRoom::take(&held, 4, 10)];
        assert!(rooms.iter().all(Option::is_some) && BodyRoom::take(&held, 1, 10).is_none());
        drop(rooms);
        assert!(BodyRoom::take(&held, 10, 10).is_some() && held.load(Ordering::Relaxed) == 0);
    }
}
