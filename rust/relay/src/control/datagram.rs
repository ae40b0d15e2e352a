//! Datagrams: a cookie and a command in, the cookie and the reply out.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rtpproxy_core::command::{ReplyCache, split_cookie};
use rtpproxy_core::front::Origin;
use rtpproxy_core::time::Mono;
use tokio::net::UdpSocket;
use tokio::sync::Mutex;

use super::{Executor, execute, ipv4};

/// The replies given lately, shared by all UDP sockets.
///
/// Whoever holds the lock executes a command: a repeated cookie that follows at once, on whatever socket,
/// finds the reply and is not executed again.
#[derive(Clone)]
pub(super) struct Replies {
    cache: Arc<Mutex<ReplyCache>>,
    start: Instant,
}

impl Default for Replies {
    fn default() -> Self {
        Self { cache: Arc::new(Mutex::new(ReplyCache::new())), start: Instant::now() }
    }
}

impl Replies {
    fn now(&self) -> Mono {
        Mono::default() + self.start.elapsed()
    }
}

/// Answers datagrams for ever.
pub(super) async fn serve(
    socket: UdpSocket,
    bound: Option<Ipv4Addr>,
    executor: impl Executor,
    replies: Replies,
) {
    let mut buffer = vec![0; DATAGRAM_MAX];
    // `try_send_to` refuses before the socket was once seen writable.
    let _ = socket.writable().await;
    loop {
        let (len, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!("control datagram: {error}");
                tokio::time::sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        let origin = Origin { peer: ipv4(from), bound };
        let Some(reply) = answer(&buffer[..len], origin, &executor, &replies).await else { continue };
        // A reply that does not fit into the socket's buffer is lost, as any datagram may be: the client asks
        // again and gets it from the cache. Waiting would stop everyone behind it.
        if let Err(error) = socket.try_send_to(&reply, from) {
            tracing::debug!("control reply to {from}: {error}");
        }
    }
}

/// The reply datagram; `None` if the executor went away.
async fn answer(
    datagram: &[u8],
    origin: Origin,
    executor: &impl Executor,
    replies: &Replies,
) -> Option<Vec<u8>> {
    let Some((cookie, text)) = split_cookie(datagram) else {
        // There is no command in it, and nothing to send back: the executor finds the error code.
        return execute(executor, datagram, origin).await;
    };
    let mut cache = replies.cache.lock().await;
    if let Some(reply) = cache.get(replies.now(), cookie) {
        executor.repeated();
        return Some([cookie, b" ", reply].concat());
    }
    let reply = execute(executor, text, origin).await?;
    cache.store(replies.now(), cookie, &reply);
    Some([cookie, b" ", &reply[..]].concat())
}

/// The longest datagram, in bytes; the rest is cut off.
const DATAGRAM_MAX: usize = 8191;
/// How long nothing is received after an error.
const ERROR_PAUSE: Duration = Duration::from_millis(10);
