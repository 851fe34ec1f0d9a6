//! The names of the topics (schema 1 of the contract), and which response topics a client may name.

use serde::Deserialize;

/// Whether `c` may stand in a job's id or a device's name.
pub fn is_safe(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.".contains(c)
}

/// Whether `text` is fit to be one level of a topic (and a file's name).
pub fn is_safe_level(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && !text.starts_with('.') && text.chars().all(is_safe)
}

/// One level of a topic that is safe in topics and as a file's name.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct TopicLevel(pub String);

impl TryFrom<String> for TopicLevel {
    type Error = String;

    fn try_from(text: String) -> Result<TopicLevel, String> {
        if is_safe_level(&text) {
            return Ok(TopicLevel(text));
        }
        Err(format!("`{text}` cannot be part of a topic; allowed are 1 to 64 letters, digits, `-`, `_` and `.`"))
    }
}

/// The first levels of every topic, with `/` between them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct TopicBase(pub String);

impl TryFrom<String> for TopicBase {
    type Error = String;

    fn try_from(text: String) -> Result<TopicBase, String> {
        if text.split('/').all(is_safe_level) {
            return Ok(TopicBase(text));
        }
        Err(format!(
            "`{text}` cannot begin a topic; allowed are levels of letters, digits, `-`, `_` and `.` with `/` between"
        ))
    }
}

impl Default for TopicBase {
    fn default() -> TopicBase {
        TopicBase("diffused".into())
    }
}

/// The most levels of a response topic: brokers end connections over topics of very many, mosquitto of more than 200.
const MOST_LEVELS: usize = 16;

/// Stands for a device's name in the topics of work that several share.
pub const ANY: &str = "any";

/// What arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputTopic {
    /// A request for text to image.
    Txt2Img,
    /// A request for image to image.
    Img2Img,
    /// Cancel one job or all.
    Cancel,
    /// A command by its name.
    Command(String),
    /// Whether Home Assistant is there.
    HomeAssistant,
}

/// This device's topics.
#[derive(Debug, Clone)]
pub struct Topics {
    root: String,
    base: String,
    home_assistant: String,
    allowed: Vec<String>,
}

impl Topics {
    /// The topics of `device` under `base`. Response topics must not lie under `home_assistant` and must begin with one
    /// of `allowed`, or be `<base>/<device>/reply/…`, on which no device acts.
    pub fn new(base: &TopicBase, device: &TopicLevel, home_assistant: String, allowed: Vec<String>) -> Topics {
        Topics { root: format!("{}/{}", base.0, device.0), base: base.0.clone(), home_assistant, allowed }
    }

    /// `<base>/<device>/<name>`
    pub fn of(&self, name: &str) -> String {
        format!("{}/{name}", self.root)
    }

    /// `<base>/<device>/job/<id>/<name>`
    pub fn job(&self, id: &str, name: &str) -> String {
        format!("{}/job/{id}/{name}", self.root)
    }

    /// Where Home Assistant says `online` when it starts.
    pub fn home_assistant(&self) -> String {
        format!("{}/status", self.home_assistant)
    }

    /// Where Home Assistant looks for the device's description.
    pub fn discovery(&self) -> String {
        format!("{}/device/{}/config", self.home_assistant, self.object_id())
    }

    /// The device's name to Home Assistant, which takes letters, digits, `_` and `-`.
    pub fn object_id(&self) -> String {
        let is_taken = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        self.root.chars().map(|c| if is_taken(c) { c } else { '_' }).collect()
    }

    /// The topic filters to subscribe to.
    pub fn filters(&self) -> Vec<String> {
        ["txt2img", "img2img", "cancel", "request/+"].iter().map(|name| self.of(name)).collect()
    }

    /// The filters of work that the devices of `group` share; none without a group.
    pub fn shared_filters(&self, group: &str) -> Vec<String> {
        let names = if group.is_empty() { &[][..] } else { &["txt2img", "img2img"] };
        names.iter().map(|name| format!("$share/{group}/{}/{ANY}/{name}", self.base)).collect()
    }

    /// What a message on `topic` is; `None` for topics that are not an input of this device.
    pub fn input(&self, topic: &str) -> Option<InputTopic> {
        if topic == self.home_assistant() {
            return Some(InputTopic::HomeAssistant);
        }
        let any = topic.strip_prefix(&self.base).and_then(|rest| rest.strip_prefix('/')?.strip_prefix(ANY));
        if let Some(name) = any.and_then(|rest| rest.strip_prefix('/')) {
            return match name {
                "txt2img" => Some(InputTopic::Txt2Img),
                "img2img" => Some(InputTopic::Img2Img),
                _ => None,
            };
        }
        match topic.strip_prefix(&self.root)?.strip_prefix('/')? {
            "txt2img" => Some(InputTopic::Txt2Img),
            "img2img" => Some(InputTopic::Img2Img),
            "cancel" => Some(InputTopic::Cancel),
            other => other.strip_prefix("request/").map(|name| InputTopic::Command(name.to_owned())),
        }
    }

    /// Checks a response topic. It comes from any client that may publish, so it must not reach what the broker, Home
    /// Assistant or any of our devices acts on. The error is the reason for a refusal.
    pub fn check_response(&self, topic: &str) -> Result<(), &'static str> {
        let under = |prefix: &str| topic == prefix || topic.strip_prefix(prefix).is_some_and(|t| t.starts_with('/'));
        if topic.is_empty() || topic.len() > 512 || topic.contains('\0') {
            return Err("it is empty or too long");
        }
        if topic.contains(['+', '#']) {
            return Err("it has wildcards");
        }
        if topic.split('/').count() > MOST_LEVELS {
            return Err("it has more than 16 levels");
        }
        if topic.starts_with('$') {
            return Err("topics with `$` belong to the broker");
        }
        if under(&self.home_assistant) || under("homeassistant") {
            return Err("it belongs to Home Assistant");
        }
        if topic.strip_prefix(&self.of("reply/")).is_some_and(|rest| !rest.is_empty()) {
            return Ok(());
        }
        if under(&self.base) {
            return Err("it belongs to diffused's own devices");
        }
        if !self.allowed.iter().any(|prefix| topic.starts_with(prefix.as_str())) {
            return Err("`mqtt.response_topics` does not allow it");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn topics(text: &str) -> Topics {
        Config::parse(text, "c.toml".as_ref()).unwrap().topics()
    }

    #[test]
    fn inputs_are_told_apart() {
        let topics = topics("device = \"frame\"");
        let command = |name: &str| Some(InputTopic::Command(name.into()));
        assert_eq!(topics.input("diffused/frame/txt2img"), Some(InputTopic::Txt2Img));
        assert_eq!(topics.input("diffused/frame/img2img"), Some(InputTopic::Img2Img));
        assert_eq!(topics.input("diffused/frame/cancel"), Some(InputTopic::Cancel));
        assert_eq!(topics.input("diffused/frame/request/list"), command("list"));
        assert_eq!(topics.input("diffused/frame2/txt2img"), None);
        assert_eq!(topics.input("diffused/frame/status"), None);
        assert_eq!(topics.input("homeassistant/status"), Some(InputTopic::HomeAssistant));
        assert_eq!(topics.input("diffused/any/img2img"), Some(InputTopic::Img2Img));
        assert_eq!(topics.input("diffused/any/cancel"), None);
        assert_eq!(topics.shared_filters("house")[0], "$share/house/diffused/any/txt2img");
        assert_eq!(topics.shared_filters(""), Vec::<String>::new());
    }

    #[test]
    fn response_topics_stay_away_from_what_others_act_on() {
        let topics = topics("device = \"frame\"\n[mqtt]\nresponse_topics = [\"\"]");
        for good in ["clients/7/answers", "diffusedother/x", "homeassistantx", "diffused/frame/reply/7"] {
            assert_eq!(topics.check_response(good), Ok(()), "{good}");
        }
        let bad = ["", "a/+", "a/#", "$SYS/x", "homeassistant/x", "diffused/frame/txt2img", "diffused/other/txt2img"];
        let bad = bad.iter().chain(&["diffused/frame/reply/", "diffused/frame/reply", "diffused/other/reply/7"]);
        for bad in bad {
            assert!(topics.check_response(bad).is_err(), "{bad}");
        }
        let deep = |levels: usize| format!("diffused/frame/reply{}", "/x".repeat(levels - 3));
        assert!(topics.check_response(&deep(16)).is_ok() && topics.check_response(&deep(17)).is_err());
    }

    #[test]
    fn the_allow_list_is_kept() {
        let some = topics("device = \"frame\"\n[mqtt]\nresponse_topics = [\"clients/\"]");
        assert!(some.check_response("clients/1").is_ok() && some.check_response("other/1").is_err());
        let default = topics("device = \"frame\"");
        assert!(
            default.check_response("clients/1").is_err() && default.check_response("diffused/frame/reply/1").is_ok()
        );
    }

    #[test]
    fn levels() {
        assert!(is_safe_level("a-1_2.x") && is_safe_level(&"a".repeat(64)));
        for bad in ["", "..", ".hidden", "a/b", "a+", "#", "ä", &"a".repeat(65)] {
            assert!(!is_safe_level(bad), "{bad}");
        }
    }
}
