//! The broker, as the service would find it.

use crate::config::{Config, MqttVersion};
use crate::mqtt::{self, BrokerAccess, BrokerReport, ProbeWishes};
use crate::service::SESSION;

use super::finding::{Finding, amount};

/// The largest image that is tried, bytes.
const LARGEST: usize = 2_000_000;
/// What a message takes beside its image, bytes.
const AROUND: usize = 1024;

/// All of it. `side`: width and height of the model's images, pixels. `running`: whether a service works on our state
/// folder; `None` where that cannot be seen.
pub(super) fn findings(config: &Config, access: BrokerAccess, side: usize, running: Option<bool>) -> Vec<Finding> {
    let url = &config.mqtt.url;
    let image = (side * side * 3).min(LARGEST);
    let wishes = ProbeWishes { image: image + AROUND, session: SESSION };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let report = match runtime {
        Ok(runtime) => {
            let report = runtime.block_on(mqtt::probe(config, access, &wishes));
            // A name server that does not answer would hold the end up.
            runtime.shutdown_background();
            report
        }
        Err(error) => Err(format!("the runtime: {error}")),
    };
    match report {
        Ok(report) => describe(&report, config, image, running),
        Err(reason) => {
            let advice = format!("see that a broker runs at mqtt.url, and that this board reaches it ({url})");
            vec![Finding::error("broker", format!("the broker cannot be used: {reason}"), advice)]
        }
    }
}

fn describe(report: &BrokerReport, config: &Config, image: usize, running: Option<bool>) -> Vec<Finding> {
    let topics = config.topics();
    let root = topics.of("");
    let (status, description) = (topics.home_assistant(), topics.discovery());
    let more = match config.home_assistant.discovery {
        true => format!(", and for Home Assistant `topic read {status}` and `topic write {description}`,"),
        false => String::new(),
    };
    let rules = format!("give our login the rule `topic readwrite {root}#`{more} in the broker's access rules");
    let mut found = vec![greeting(report, config), subscriptions(report, &rules), publishing(report, &rules)];
    found.push(packet_size(report, image));
    found.extend(session(report));
    found.push(device_name(report, &config.device.0, running));
    found
}

fn greeting(report: &BrokerReport, config: &Config) -> Finding {
    let url = &config.mqtt.url;
    let version = match report.version {
        MqttVersion::V5 => "MQTT 5",
        MqttVersion::V3 => "MQTT 3.1.1, which announces no limits",
    };
    let tls = if url.transport.is_tls() { ", encrypted" } else { "" };
    let login = config.mqtt.username.as_ref().map_or(String::new(), |name| format!(", logged in as `{name}`"));
    let under_way = report.receive_maximum.map_or(String::new(), |most| format!(", {most} messages under way"));
    let found = format!("{url}: {version}{tls}{login}{under_way}");
    let lacks: Vec<&str> = [(!report.keeps, "retained messages"), (!report.confirms, "QoS 1")]
        .into_iter()
        .filter_map(|(lacks, what)| lacks.then_some(what))
        .collect();
    if lacks.is_empty() {
        return Finding::ok("broker", found);
    }
    let advice = "allow it in the broker's configuration: without, clients that come later see no `status` and `info`, \
                  and messages may get lost";
    Finding::warning("broker", format!("{found}; it takes no {}", lacks.join(" and no ")), advice)
}

fn subscriptions(report: &BrokerReport, rules: &str) -> Finding {
    if report.refused.is_empty() {
        return Finding::ok("subscriptions", "our subscriptions are granted");
    }
    Finding::error("subscriptions", report.refused.join("; "), rules)
}

fn publishing(report: &BrokerReport, rules: &str) -> Finding {
    match &report.echo {
        Ok(()) => Finding::ok("publishing", "what we publish is taken, and comes back to us"),
        Err(reason) => Finding::error("publishing", reason, rules),
    }
}

/// Whether an image of `image` bytes passes.
fn packet_size(report: &BrokerReport, image: usize) -> Finding {
    let name = "packet_size";
    let advice = "raise the broker's limit (mosquitto: max_packet_size, message_size_limit): images over it come as smaller \
                  JPEGs, or stay in state_dir with their path in the result";
    let wanted = amount(image as u64);
    match (report.max_packet, &report.large) {
        (Some(most), _) if most < image + AROUND => {
            Finding::warning(name, format!("packets up to {most} bytes; an image may have {wanted}"), advice)
        }
        (Some(most), _) => Finding::ok(name, format!("packets up to {most} bytes; an image may have {wanted}")),
        (None, Some(Ok(()))) => Finding::ok(name, format!("no limit is announced; a message of {wanted} passed")),
        (None, Some(Err(reason))) => {
            let found = format!(
                "no limit is announced, but a message of {wanted}, as an image may have, did not pass: {reason}"
            );
            Finding::warning(name, found, advice)
        }
        (None, None) => Finding::ok(name, "not tried, as smaller messages do not pass"),
    }
}

/// Whether requests wait for us while we are away; MQTT 3.1.1 does not tell.
fn session(report: &BrokerReport) -> Option<Finding> {
    let name = "session";
    let advice = "requests that are published while this device is away get lost: let the broker keep sessions (mosquitto: \
                  `persistence true`, and no small persistent_client_expiration)";
    let finding = match report.session.as_ref()? {
        Err(reason) => Finding::warning(name, format!("the broker keeps no session: {reason}"), advice),
        Ok((_, false)) => Finding::warning(name, "the broker had forgotten our session a moment later", advice),
        Ok((granted, true)) if *granted < SESSION => {
            let found =
                format!("the broker keeps our session for {} s while we are away, not a week", granted.as_secs());
            Finding::warning(name, found, advice)
        }
        Ok((_, true)) => Finding::ok(name, "the broker keeps our session for a week while we are away"),
    };
    Some(finding)
}

/// Two devices of one name answer each other's requests.
fn device_name(report: &BrokerReport, device: &str, running: Option<bool>) -> Finding {
    let name = "device_name";
    match (report.is_online, running) {
        (false, _) => Finding::ok(name, format!("no device named `{device}` is online")),
        (true, Some(true)) => Finding::ok(name, format!("`{device}` is online, and a service runs here")),
        (true, _) => {
            let found = format!("a device named `{device}` is online, but no service works on this state_dir");
            let advice = format!("if `{device}` is not this board, give this one another `device`");
            Finding::warning(name, found, advice)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::finding::Severity;
    use super::*;

    fn report() -> BrokerReport {
        BrokerReport {
            version: MqttVersion::V5,
            max_packet: None,
            keeps: true,
            confirms: true,
            receive_maximum: None,
            refused: vec![],
            is_online: false,
            echo: Ok(()),
            large: Some(Ok(())),
            session: Some(Ok((SESSION, true))),
        }
    }

    fn found(report: &BrokerReport) -> Vec<Finding> {
        describe(report, &Config::default(), 49_152, Some(false))
    }

    /// The one finding that is not well, by its name.
    #[track_caller]
    fn check(report: &BrokerReport, name: &str, severity: Severity, part: &str) {
        let found = found(report);
        let bad: Vec<&Finding> = found.iter().filter(|finding| finding.severity != Severity::Ok).collect();
        let [bad] = bad[..] else { panic!("{found:?}") };
        assert!(bad.name == name && bad.severity == severity && bad.found.contains(part), "{bad:?}");
    }

    #[test]
    fn a_good_broker_is_all_well() {
        assert!(found(&report()).iter().all(|finding| finding.severity == Severity::Ok));
    }

    #[test]
    fn each_fault_is_one_finding() {
        use Severity::{Error, Warning};
        check(&BrokerReport { keeps: false, ..report() }, "broker", Warning, "takes no retained messages");
        check(&BrokerReport { refused: vec!["no".into()], ..report() }, "subscriptions", Error, "no");
        check(&BrokerReport { echo: Err("no".into()), large: None, ..report() }, "publishing", Error, "no");
        check(
            &BrokerReport { max_packet: Some(20_000), large: None, ..report() },
            "packet_size",
            Warning,
            "up to 20000",
        );
        check(&BrokerReport { large: Some(Err("0x95".into())), ..report() }, "packet_size", Warning, "0x95");
        let session = |outcome| BrokerReport { session: Some(outcome), ..report() };
        check(&session(Ok((SESSION, false))), "session", Warning, "forgotten");
        check(&session(Ok((Duration::from_secs(60), true))), "session", Warning, "for 60 s");
        check(&session(Err("gone".into())), "session", Warning, "gone");
        check(&BrokerReport { is_online: true, ..report() }, "device_name", Warning, "is online");
    }

    #[test]
    fn the_service_of_this_board_may_be_online() {
        assert_eq!(device_name(&BrokerReport { is_online: true, ..report() }, "a", Some(true)).severity, Severity::Ok);
    }
}
