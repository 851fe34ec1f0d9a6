//! An example or more of each message. A test of the whole program checks them against the schemas.

use serde_json::{Value, json};

/// The examples of the message `name`.
pub(super) fn examples(name: &str) -> Vec<Value> {
    let named = match name {
        "Status" => vec![("online", json!("online")), ("offline", json!("offline"))],
        "Prompt" => vec![("text", json!("a black cat on the right on a pink background"))],
        "DeviceInfo" => vec![("demo", info())],
        "Health" => vec![("board", health())],
        "Activity" => vec![
            (
                "painting",
                json!({
                    "state": "painting", "job": "cat-1", "progress": 0.51, "eta_relative": 48.2, "waiting": 1,
                    "paused": false,
                }),
            ),
            ("idle", json!({"state": "idle", "waiting": 0, "paused": false})),
        ],
        "Txt2ImgRequest" => vec![
            ("short", json!({"prompt": "a black cat"})),
            (
                "full",
                json!({
                    "id": "cat-1", "prompt": "a black cat", "negative_prompt": "blurry", "steps": 20, "cfg_scale": 5,
                    "seed": 7, "width": 128, "height": 128, "sampler_name": "Euler a", "n_iter": 2, "format": "jpeg",
                    "priority": 10, "not_after": 1_800_000_000,
                }),
            ),
        ],
        "Img2ImgRequest" => vec![(
            "sunset",
            json!({"prompt": "a red house at sunset", "denoising_strength": 0.6, "init_images": ["iVBORw0KGgo…"]}),
        )],
        "CancelRequest" => {
            vec![("one", json!({"id": "cat-1"})), ("running", json!({"running": true})), ("all", json!({"all": true}))]
        }
        "PauseRequest" => vec![("bare", json!({})), ("resume", json!({"paused": false}))],
        "MoveRequest" => vec![("next", json!({"id": "cat-2"})), ("second", json!({"id": "cat-2", "to": 1}))],
        "SettingsRequest" => vec![("few", json!({"steps": 10, "cfg_scale": null, "sampler_name": "Euler a"}))],
        "CommandRequest" => vec![("bare", json!({})), ("named", json!({"transaction": 5}))],
        "Response" => vec![
            (
                "jobs",
                json!({
                    "status": "ok", "data": {"running": "cat-1", "waiting": ["cat-2"], "paused": false},
                    "transaction": 5,
                }),
            ),
            ("health", json!({"status": "ok", "data": health()})),
            ("settings", json!({"status": "ok", "data": {"settings": {"steps": 10}}})),
            ("error", json!({"status": "error", "data": {}, "error": "there is no job `cat-9` in the queue"})),
        ],
        "JobState" => vec![
            ("queued", json!({"id": "cat-1", "state": "queued", "position": 0})),
            ("done", json!({"id": "cat-1", "state": "done"})),
            ("rejected", rejected()),
        ],
        "JobProgress" => vec![(
            "half",
            json!({
                "progress": 0.51, "eta_relative": 48.2, "stage": "unet", "step": 10, "steps": 20, "image": 0,
                "images": 1,
            }),
        )],
        "JobResult" => vec![("cat", result())],
        _ => vec![],
    };
    named.into_iter().map(|(name, payload)| json!({"name": name, "payload": payload})).collect()
}

pub(in crate::contract) fn info() -> Value {
    json!({
        "version": "0.1.0",
        "schema": 1,
        "model": {"name": "demo", "sha256": "5a".repeat(32), "family": "sd1", "weights": "int8"},
        "panels": ["inky-impression-7.3", "waveshare-7.5-v2"],
        "samplers": ["ddim", "pndm", "euler", "euler_ancestral", "heun", "lms", "dpm2", "dpm2_ancestral", "dpmpp_2s",
                     "dpmpp_2m", "dpmpp_2m_karras", "dpmpp_2m_sde", "dpmpp_sde", "unipc", "deis", "lcm", "tcd"],
        "schedulers": ["uniform", "karras", "exponential", "sgm_uniform", "simple", "normal", "ddim_uniform", "beta",
                       "align_your_steps", "align_your_steps_xl"],
        "settings": {"steps": 10},
        "defaults": {"sampler_name": "ddim", "steps": 20, "cfg_scale": 5.0},
        "sizes": {"default": 128, "smallest": 32, "multiple": 8},
        "limits": {"queue": 32, "packet": 8_388_608, "memory": 209_715_200},
    })
}

fn health() -> Value {
    json!({
        "rss": 53_264_384, "peak_rss": 60_264_448, "memory_limit": 209_715_200, "memory_pressure": 0.0,
        "io_pressure": 1.5, "cpu_pressure": 40.25, "temperature": 54.5, "throttled": false, "cooling": false,
        "read_rate": 20_971_520.0, "bytes_written": 1_048_576,
        "disk_free": 21_474_836_480_u64, "queue": 0, "busy": false,
        "paused": false, "seconds_per_step": 0.08, "undelivered": 0, "problems": [],
    })
}

fn rejected() -> Value {
    json!({
        "id": "cat-2", "state": "rejected",
        "error": {
            "code": "invalid_param", "field": "width",
            "message": "100 is not allowed; this model takes multiples of 8 from 32 to 2048, the nearest are 96 and 104",
        },
    })
}

fn result() -> Value {
    json!({
        "id": "cat-1",
        "status": "done",
        "parameters": {
            "prompt": "a black cat", "negative_prompt": "", "width": 128, "height": 128, "steps": 20,
            "cfg_scale": 5.0, "seed": 7, "sampler_name": "ddim", "decoder": "full",
        },
        "model_sha256": "5a".repeat(32),
        "timings": {
            "text_encoder": 0.028, "vae_encoder": 0.0, "unet": 1.517, "vae_decoder": 0.114, "total": 1.731,
            "peak_rss": 53_264_384,
        },
        "images": [{
            "topic": "diffused/frame/job/cat-1/image/0", "content_type": "image/png", "bytes": 15_933,
            "sha256": "7b".repeat(32), "path": "/var/lib/diffused/pictures/cat-1-0.png",
        }],
    })
}
