//! `diffused submit`: a prompt for a device, and the image from it. The job's id is made here, so a request that is
//! published again, because the connection was gone meanwhile, is the same job.

use std::path::PathBuf;

use base64::Engine as _;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use crate::commands::arrivals::Arrivals;
use crate::commands::cli::{SubmitArgs, print_line};
use crate::commands::client::{self, Client, Heard, SESSION};
use crate::commands::preview_file::PreviewFile;
use crate::commands::progress_line::ProgressLine;
use crate::commands::watch::{ended, labelled, state_line};
use crate::contract::messages::{JobProgress, JobResult, JobState, State};
use crate::contract::request::PaintRequest;
use crate::failure::Failure;
use crate::random;
use destination::Destination;

mod destination;

/// After a reconnection: how long nothing is heard of the job before the request is published again.
const REPEAT: std::time::Duration = std::time::Duration::from_secs(3);

/// Publishes the request, waits for the job's end and writes its images.
pub fn run(arguments: &SubmitArgs) -> Result<(), Failure> {
    client::run(arguments.device.json, submit(arguments))
}

async fn submit(arguments: &SubmitArgs) -> Result<(), Failure> {
    let destination = Destination::check(arguments)?;
    let preview = PreviewFile::check(arguments.paint.preview.as_deref())?;
    let request = request(arguments, &destination)?;
    let id = request.id.clone().unwrap_or_default();
    let topic = if request.init_images.is_some() { "img2img" } else { "txt2img" };
    let name = format!("job/{id}/#");
    let mut client = Client::connect(&arguments.device, &[&name], SESSION).await?;
    client.publish(topic, &request);
    let mut job = SubmittedJob {
        json: arguments.device.json,
        line: ProgressLine::new(!arguments.device.json),
        arrivals: Arrivals::default(),
        heard: false,
        connected: true,
        online: true,
        warned: vec![],
        preview,
        id,
    };
    job.line.wait(format!("waiting for {}", client.device));
    let mut deadline = Some(client.deadline());
    let mut repeated = false;
    let end = loop {
        let heard = tokio::select! {
            heard = client.hear() => heard?,
            () = sleep(deadline), if deadline.is_some() && !job.heard => return Err(client.silent()),
            () = sleep(deadline), if deadline.is_some() => {
                client.publish(topic, &request);
                deadline = Some(Instant::now() + REPEAT);
                continue;
            }
            _ = tokio::signal::ctrl_c() => {
                job.line.clear();
                return Err(job.left(&client));
            }
        };
        match heard {
            Heard::Message(name, payload) => {
                let end = job.hear(&name, payload);
                deadline = if job.heard { None } else { deadline };
                match end {
                    None if arguments.no_wait && job.heard => break None,
                    None => {}
                    // The connection was gone when they passed.
                    Some(JobState { state: State::Done, .. }) if !job.arrivals.are_complete() && !repeated => {
                        repeated = true;
                        client.publish(topic, &request);
                    }
                    end => break end,
                }
            }
            Heard::Lost(_) => job.connection(false),
            Heard::Back => {
                job.connection(true);
                if job.heard {
                    deadline = Some(Instant::now() + REPEAT);
                }
            }
            Heard::Presence(online) => job.presence(online),
        }
    };
    job.line.clear();
    client.finish().await;
    match end {
        None => print_line(if job.json { json!({"event": "queued", "id": job.id}).to_string() } else { job.id }),
        Some(state) => {
            ended(&state)?;
            destination.write(&job.arrivals, &arguments.paint.prompt, job.json)?;
        }
    }
    Ok(())
}

async fn sleep(deadline: Option<Instant>) {
    sleep_until(deadline.unwrap_or_else(Instant::now)).await;
}

/// What is known of the job.
struct SubmittedJob {
    id: String,
    json: bool,
    line: ProgressLine,
    arrivals: Arrivals,
    /// Whether the device has said anything of it.
    heard: bool,
    /// Whether the connection to the broker is there.
    connected: bool,
    /// Whether the device is.
    online: bool,
    /// Warnings that were shown.
    warned: Vec<String>,
    preview: PreviewFile,
}

impl SubmittedJob {
    /// Takes a message in; gives the state that ends the job.
    fn hear(&mut self, name: &str, payload: bytes::Bytes) -> Option<JobState> {
        let name = name.strip_prefix(&format!("job/{}/", self.id))?;
        self.heard = true;
        match name.split_once('/') {
            None if name == "state" => {
                let state: JobState = serde_json::from_slice(&payload).ok()?;
                self.print("state", &state);
                return self.state(state);
            }
            None if name == "progress" => {
                let progress: JobProgress = serde_json::from_slice(&payload).ok()?;
                self.print("progress", &progress);
                self.line.show(&progress);
            }
            None if name == "result" => {
                let result: JobResult = serde_json::from_slice(&payload).ok()?;
                self.warn(&result.warnings);
                self.arrivals.result = Some(result);
            }
            None if name == "preview" => self.preview.write(&payload),
            Some(("image", number)) => self.arrivals.add(number.parse().ok()?, payload),
            Some(("output", number)) => self.arrivals.add_output(number.parse().ok()?, payload),
            _ => {}
        }
        None
    }

    fn state(&mut self, state: JobState) -> Option<JobState> {
        self.warn(&state.warnings);
        match state.state {
            State::Queued => self.line.wait(state_line(&JobState { warnings: vec![], ..state })),
            State::Running => self.line.wait("running".to_owned()),
            _ => return Some(state),
        }
        None
    }

    /// Shows what was not shown yet. As JSON it is part of the messages.
    fn warn(&mut self, warnings: &[String]) {
        for warning in warnings {
            if !self.json && !self.warned.contains(warning) {
                self.line.note(&format!("warning: {warning}"));
                self.warned.push(warning.clone());
            }
        }
    }

    /// Each attempt to connect that fails is heard of; only the first is shown.
    fn connection(&mut self, connected: bool) {
        if std::mem::replace(&mut self.connected, connected) == connected {
            return;
        }
        if connected {
            self.line.note("the connection to the broker is back");
            self.line.wait("waiting for the device".to_owned());
        } else {
            self.line.note("the connection to the broker is gone; waiting for it to come back; ^C leaves the job");
            self.line.wait("no connection to the broker".to_owned());
        }
    }

    /// The broker repeats what it keeps of the device at each connection; only changes are shown.
    fn presence(&mut self, online: bool) {
        if std::mem::replace(&mut self.online, online) == online {
            return;
        }
        if online {
            self.line.note("the device is back");
            self.line.wait("waiting for the device".to_owned());
        } else {
            self.line.note("the device has gone offline; waiting for it to come back; ^C leaves the job");
            self.line.wait("the device is offline".to_owned());
        }
    }

    fn print(&self, event: &str, message: &impl serde::Serialize) {
        if self.json {
            print_line(labelled(event, &self.id, message));
        }
    }

    /// The user does not wait any longer.
    fn left(&self, client: &Client) -> Failure {
        let (id, options) = (&self.id, &client.options);
        Failure::Interrupted(format!(
            "the job goes on; `diffused watch {id} {options}` follows it, `diffused cancel {id} {options}` cancels it"
        ))
    }
}

/// What is published. Nothing in it is random but an id that the user did not give: the same command line with an id is
/// the same request, of which the device draws the seed once.
fn request(arguments: &SubmitArgs, destination: &Destination) -> Result<PaintRequest, Failure> {
    let paint = &arguments.paint;
    let in_base64 = |flag: &str, path: &Option<PathBuf>| match path.as_ref().map(|path| (path, std::fs::read(path))) {
        None => Ok(None),
        Some((_, Ok(bytes))) => Ok(Some(base64::engine::general_purpose::STANDARD.encode(bytes))),
        Some((path, Err(error))) => Err(Failure::Usage(format!("{flag}: {}: {error}", path.display()))),
    };
    let request = PaintRequest {
        prompt: paint.prompt.clone(),
        negative_prompt: Some(paint.negative_prompt.clone()).filter(|text| !text.is_empty()),
        steps: paint.steps,
        cfg_scale: paint.cfg_scale,
        seed: paint.seed,
        width: paint.width,
        height: paint.height,
        sampler_name: paint.sampler.map(|choice| choice.kind),
        scheduler: paint.schedule(),
        eta: paint.eta,
        n_iter: arguments.n_iter,
        init_images: in_base64("--init-image", &paint.init_image)?.map(|image| vec![image]),
        denoising_strength: paint.strength,
        decoder: paint.decoder,
        fit: paint.fit,
        resize_mode: None,
        background: paint.background,
        prompt_syntax: paint.prompt_syntax,
        upscale: paint.upscale,
        clip_skip: paint.clip_skip,
        guidance_interval: paint.guidance_interval,
        cache_interval: paint.cache_interval,
        override_settings: None,
        output: paint.panel.clone(),
        preview: paint.preview.as_ref().map(|_| true),
        hires: paint.hires.request(),
        id: Some(arguments.id.as_ref().map_or_else(random::id, |id| id.0.clone())),
        transaction: None,
        format: arguments.format.or(destination.format()),
        priority: arguments.priority,
        not_after: arguments.not_after,
        ..PaintRequest::default()
    };
    Ok(paint.mask.add_to(request, in_base64("--mask", &paint.mask.mask)?))
}
