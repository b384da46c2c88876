//! Confirms a subscription to an AWS SNS topic: one GET on a thread of its own.
//!
//! The URL was made from a configured topic. Whether SNS accepts the confirmation decides only about
//! nudges, so a failure is logged and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tracing::{info, warn};
use url::Url;

use crate::base::budget::Budget;
use crate::base::error::Stage;
use crate::net::NetConfig;
use crate::net::http::{Client, Method, Redirects, Request, without_query};

/// How long it may take.
const WITHIN: Duration = Duration::from_secs(15);

/// Sent with the request.
const USER_AGENT: &str = concat!("git-volume-reloader/", env!("CARGO_PKG_VERSION"));

/// What gets such a URL. Returns at once; while one is being got, others are dropped, since SNS asks
/// again.
pub(super) fn confirmer(net: NetConfig) -> Arc<dyn Fn(String) + Send + Sync> {
    let busy = Arc::new(AtomicBool::new(false));
    Arc::new(move |url| {
        if busy.swap(true, Ordering::Relaxed) {
            return;
        }
        let (net, done) = (net.clone(), busy.clone());
        let spawned = std::thread::Builder::new()
            .name("confirm".to_owned())
            .spawn(move || {
                match confirm(net, &url) {
                    Ok(()) => info!("the subscription to the SNS topic is confirmed"),
                    Err(error) => warn!(error, "cannot confirm the subscription to an SNS topic"),
                }
                done.store(false, Ordering::Relaxed);
            });
        if let Err(error) = spawned {
            busy.store(false, Ordering::Relaxed);
            warn!(%error, "no thread to confirm the subscription to an SNS topic");
        }
    })
}

fn confirm(net: NetConfig, url: &str) -> Result<(), String> {
    let url = Url::parse(url).map_err(|error| error.to_string())?;
    let budget = Budget::new(WITHIN, WITHIN, Arc::default());
    let request = Request {
        stage: Stage::Poll,
        method: Method::GET,
        url: &url,
        headers: &[],
        bound: None,
        body: None,
        redirects: Redirects::Return,
        shown: without_query,
    };
    let response = Client::new(net, USER_AGENT)
        .send(&request, &budget)
        .map_err(|failure| failure.error.chain())?;
    match response.status.is_success() {
        true => Ok(()),
        false => Err(format!("SNS answered {}", response.status)),
    }
}
