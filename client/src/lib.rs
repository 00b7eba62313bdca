//! Typed client for `pith.v1`: retry, deadline, cancel, streams.
//!
//! ```no_run
//! # async fn example() -> Result<(), pith_client::Error> {
//! use pith_client::{Client, Event, v1};
//!
//! let client = Client::connect("http://127.0.0.1:7411").key("secret").await?;
//! let mut answer = client
//!     .generate(v1::GenerateRequest { prompt: "Why is the sky blue?".into(), ..Default::default() })
//!     .await?;
//! while let Some(event) = answer.next().await? {
//!     if let Event::Tokens(chunk) = event {
//!         // chunk.text
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Dropping an [`Answer`] (or the future of any call) cancels the call on the server. Nothing of the server's
//! insides is known here.
#![forbid(unsafe_code)]

mod answer;
mod call;
mod client;
mod connect;
mod documents;
mod error;
mod retry;

pub use answer::{Answer, Event};
pub use client::Client;
pub use connect::Connect;
pub use error::{Error, Quota, Rejection, Violation};
pub use pith_proto::v1;
pub use retry::Retry;
pub use tonic::Code;
