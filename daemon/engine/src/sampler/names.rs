//! The samplers' names: ours, and those that A1111's web interface made known.

use std::fmt;
use std::str::FromStr;

use super::Kind;
use crate::error::Error;

impl Kind {
    /// Every sampler.
    pub const ALL: [Kind; 7] =
        [Kind::Ddim, Kind::Pndm, Kind::Euler, Kind::EulerAncestral, Kind::Dpmpp2m, Kind::Dpmpp2mKarras, Kind::Lcm];

    /// Its name in requests and results.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Ddim => "ddim",
            Kind::Pndm => "pndm",
            Kind::Euler => "euler",
            Kind::EulerAncestral => "euler_ancestral",
            Kind::Dpmpp2m => "dpmpp_2m",
            Kind::Dpmpp2mKarras => "dpmpp_2m_karras",
            Kind::Lcm => "lcm",
        }
    }

    /// Its name as A1111 spells it.
    pub fn label(self) -> &'static str {
        match self {
            Kind::Ddim => "DDIM",
            Kind::Pndm => "PLMS",
            Kind::Euler => "Euler",
            Kind::EulerAncestral => "Euler a",
            Kind::Dpmpp2m => "DPM++ 2M",
            Kind::Dpmpp2mKarras => "DPM++ 2M Karras",
            Kind::Lcm => "LCM",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = Error;

    /// Our names, A1111's, in any case, with blanks or underscores.
    fn from_str(text: &str) -> Result<Kind, Error> {
        let plain = |name: &str| name.trim().to_lowercase().replace([' ', '-'], "_").replace("++", "pp");
        let wanted = plain(text);
        let known = |kind: &Kind| wanted == kind.name() || wanted == plain(kind.label());
        let found = Kind::ALL.into_iter().find(known).or(match wanted.as_str() {
            "dpm_pp_2m" => Some(Kind::Dpmpp2m),
            "dpm_pp_2m_karras" => Some(Kind::Dpmpp2mKarras),
            "k_euler" => Some(Kind::Euler),
            "k_euler_a" => Some(Kind::EulerAncestral),
            _ => None,
        });
        found.ok_or_else(|| Error::InvalidParam {
            field: "sampler_name",
            message: format!("\"{text}\" is unknown; known are {}", Kind::ALL.map(Kind::name).join(", ")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_known() {
        for kind in Kind::ALL {
            assert_eq!(kind.name().parse::<Kind>().unwrap(), kind);
            assert_eq!(kind.label().parse::<Kind>().unwrap(), kind);
            assert_eq!(kind.label().to_uppercase().parse::<Kind>().unwrap(), kind);
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let message = "Heun".parse::<Kind>().unwrap_err().to_string();
        assert!(message.contains("Heun") && message.contains("dpmpp_2m_karras"), "{message}");
    }
}
