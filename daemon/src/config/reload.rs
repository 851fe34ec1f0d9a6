//! Which keys a running service takes over from a file that has changed, and which need a restart.

use super::Config;

/// Sets the named keys of `$fresh` to what they are in `$running`; gives the names of those that differed.
macro_rules! keep {
    ($fresh:ident, $running:ident: $($($key:ident).+),+ $(,)?) => {{
        let mut differing = vec![];
        $(if $fresh.$($key).+ != $running.$($key).+ {
            differing.push(concat!($(stringify!($key), "."),+).trim_end_matches('.'));
            $fresh.$($key).+ = $running.$($key).+.clone();
        })+
        differing
    }};
}

impl Config {
    /// What a service that runs with this configuration has of `fresh` without a restart, and the names of the keys for
    /// which it needs one. All keys that are not named here are taken over.
    pub fn adopt(&self, mut fresh: Config) -> (Config, Vec<&'static str>) {
        let restart = keep!(
            fresh, self: device, model, memory, threads, temperature_file, state_dir, checkpoint_interval, mqtt.url,
            mqtt.version, mqtt.username, mqtt.password_file, mqtt.ca_file, mqtt.cert_file, mqtt.key_file, mqtt.base,
            mqtt.keep_alive, mqtt.max_packet, fleet,
        );
        (fresh, restart)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text, Path::new("c.toml")).unwrap()
    }

    #[test]
    fn what_needs_a_restart_is_named_and_the_rest_taken_over() {
        let running = config("device = \"frame\"");
        let keys = "device = \"frame\"\nkeep_pictures = 3\nqueue_length = 5\nmemory = \"1G\"";
        let text = format!("{keys}\n[mqtt]\nbase = \"b\"\nretain_image = true");
        let (taken, restart) = running.adopt(config(&text));
        assert_eq!(restart, ["memory", "mqtt.base"]);
        assert_eq!(
            taken,
            config("device = \"frame\"\nkeep_pictures = 3\nqueue_length = 5\n[mqtt]\nretain_image = true")
        );
        assert_eq!(running.adopt(running.clone()), (running, vec![]));
    }
}
