//! A link shortener: a map as the state of a web server.
//!
//! ```text
//! cargo run -p link-shortener -- example-data/links.db 3000
//! ```
//!
//! The file and the port may be left out; port 0 takes a free one. Ctrl-C, or SIGTERM on Unix, ends it in an orderly way.
//!
//! **When it is killed**, every link whose page has said that it was added is in the file, and nothing needs to be repaired.
//! A request that was cut off has added its link or has not. [`README.md`](../README.md) shows it.

mod app;
mod page;

use std::net::Ipv4Addr;
use std::path::PathBuf;

use persistent_map::{PersistentMap, sqlite::SqliteBackend};
use tokio::net::TcpListener;

use crate::app::router;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let mut arguments = std::env::args_os().skip(1);
    let file = arguments
        .next()
        .map_or_else(|| "links.db".into(), PathBuf::from);
    let port = match arguments.next() {
        Some(port) => port.to_string_lossy().parse()?,
        None => 3000,
    };

    let links = PersistentMap::new(SqliteBackend::new(&file).await?).await?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    println!(
        "{} links at http://{}/",
        links.len(),
        listener.local_addr()?
    );

    // The router has a clone of the map, which is a handle to the same one.
    axum::serve(listener, router(links.clone()))
        .with_graceful_shutdown(told_to_end())
        .await?;
    // All requests are answered. What is left is to close the file, and to hear of it if that fails.
    links.close().await?;
    println!("closed");
    Ok(())
}

/// Ctrl-C, or what service managers send.
async fn told_to_end() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminate.recv() => return,
                _ = tokio::signal::ctrl_c() => return,
            }
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}
