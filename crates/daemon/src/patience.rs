//! A stream that fails if the other end does not read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Writes fail once data has waited for longer than the limit to be sent.
#[derive(Debug)]
pub struct Patience<S> {
    stream: S,
    limit: Duration,
    /// Runs from the first write that had to wait until everything is written.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<S> Patience<S> {
    /// Wraps a stream; `limit` is the longest time that written data may wait.
    pub fn new(stream: S, limit: Duration) -> Self {
        Self {
            stream,
            limit,
            timer: None,
        }
    }

    fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        (self.timer.as_mut()).is_some_and(|timer| timer.as_mut().poll(context).is_ready())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patience<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patience<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        if result.is_pending() {
            let limit = self.limit;
            self.timer.get_or_insert_with(|| Box::pin(sleep(limit)));
        }
        if self.is_over(context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(context);
        if result.is_ready() {
            self.timer = None;
        }
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const LIMIT: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn a_client_that_reads_nothing_or_too_slowly_is_disconnected() {
        for bytes_a_read in [0, 1] {
            let (ours, mut theirs) = duplex(4);
            let mut ours = Patience::new(ours, LIMIT);
            let reading = tokio::spawn(async move {
                let mut bytes = vec![0; bytes_a_read];
                loop {
                    sleep(LIMIT / 5).await;
                    if !bytes.is_empty() && theirs.read_exact(&mut bytes).await.is_err() {
                        return;
                    }
                }
            });
            let error = ours.write_all(&[0; 1000]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            reading.abort();
        }
    }

    #[tokio::test]
    async fn a_client_that_reads_in_time_gets_everything() {
        let (ours, mut theirs) = duplex(4);
        let mut ours = Patience::new(ours, Duration::from_secs(30));
        let reading = tokio::spawn(async move {
            let mut all = Vec::new();
            theirs.read_to_end(&mut all).await.unwrap();
            all.len()
        });
        for _ in 0..3 {
            ours.write_all(&[0; 100]).await.unwrap();
            ours.flush().await.unwrap();
        }
        drop(ours);
        assert_eq!(reading.await.unwrap(), 300);
    }
}
