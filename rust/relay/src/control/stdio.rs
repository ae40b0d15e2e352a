//! Commands from standard input, replies to standard output.

use rtpproxy_core::front::Origin;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Executor, stream};

/// Answers lines from `reader` until its end, and starts the slow shutdown then if `drains`.
pub(super) async fn serve(
    reader: impl AsyncRead + Unpin + Send,
    writer: impl AsyncWrite + Unpin + Send,
    executor: impl Executor,
    drains: bool,
) {
    stream::serve_lines(reader, writer, Origin::default(), &executor).await;
    if drains {
        tracing::info!("the standard input has ended: new sessions are refused from now on");
        executor.drain();
    }
}
