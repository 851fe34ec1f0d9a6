//! `diffused http`: A1111's web API in front of a device's queue, so that programs that were made for that API paint with
//! it. It is a process of its own, an MQTT client as the other verbs are: the service carries none of it.
//!
//! What comes by HTTP is never trusted: `guard` lets a request in or not, `server` bounds its size and its time, `translate`
//! makes the contract's request of it. `hub` knows the device and the jobs that came by HTTP.

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use crate::commands::cli::{HttpArgs, print_line};
use crate::commands::client::{self, Client, SESSION};
use crate::failure::Failure;
use guard::{Guard, Secret};
use hub::Hub;
use server::Server;

mod answer;
mod calls;
mod guard;
mod hub;
mod infotext;
mod job;
mod lists;
mod options;
mod presence;
mod result;
mod series;
mod server;
mod translate;

/// What the device says that matters here. What a display shows does not.
const NAMES: [&str; 6] = ["info", "job/+/state", "job/+/progress", "job/+/preview", "job/+/image/+", "job/+/result"];

/// The log's levels where `DIFFUSED_LOG` does not say.
const LOG: &str = "warn,diffused::commands::http=info";

/// How long clients may take at the end to be told that it is one.
const GOODBYE: Duration = Duration::from_secs(2);

/// Serves until SIGTERM or SIGINT. Jobs that are not done by then go on at the device.
pub fn run(arguments: &HttpArgs) -> Result<(), Failure> {
    client::run_logged(LOG, arguments.device.json, serve(arguments))
}

async fn serve(arguments: &HttpArgs) -> Result<(), Failure> {
    let guard = Guard::new(arguments.listen, secret(arguments)?);
    let listener = TcpListener::bind(arguments.listen)
        .await
        .map_err(|error| Failure::Other(format!("--listen: {}: {error}", arguments.listen)))?;
    let address = listener.local_addr().map_err(|error| Failure::Other(format!("--listen: {error}")))?;
    let client = Client::open(&arguments.device, &NAMES, SESSION)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| Failure::Other(format!("signals: {error}")))?;
    tell(arguments, address, &client);
    let (hub, driver) = Hub::start(client);
    let (server, mut driver) = (Server::new(guard, hub.clone()), pin!(driver));
    tokio::select! {
        () = &mut driver => return Err(Failure::Other("the connection to the broker's task has ended".to_owned())),
        () = server.run(listener) => {}
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    hub.end();
    let answered = async {
        tokio::select! {
            () = driver => {}
            () = server.idle() => {}
        }
    };
    // Who does not take the answer has none.
    let _ = timeout(GOODBYE, answered).await;
    Ok(())
}

/// The token, without which nobody but this machine is answered.
fn secret(arguments: &HttpArgs) -> Result<Option<Secret>, Failure> {
    match &arguments.token_file {
        Some(path) => Secret::read(path).map(Some).map_err(Failure::Usage),
        None if is_loopback(arguments.listen.ip()) => Ok(None),
        None => Err(Failure::Usage(format!(
            "--listen: whoever reaches {} could paint; --token-file names a file with a secret that clients must give, \
             as `head -c 24 /dev/urandom | base64` makes one; without it only 127.0.0.1 and ::1 are served",
            arguments.listen
        ))),
    }
}

/// Whether only this machine reaches an address.
fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

fn tell(arguments: &HttpArgs, address: SocketAddr, client: &Client) {
    let (device, broker) = (&client.device, &client.broker);
    if arguments.device.json {
        print_line(json!({"event": "listening", "address": address.to_string(), "device": device, "broker": broker}));
    } else {
        print_line(format!("http://{address} answers for the device `{device}` at {broker}"));
    }
}
