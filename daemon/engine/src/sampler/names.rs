//! The samplers' names: ours, and those that A1111's web interface made known.

use std::fmt;
use std::str::FromStr;

use super::SamplerKind;
use crate::error::Error;

impl SamplerKind {
    /// Every sampler.
    pub const ALL: [SamplerKind; 7] = [
        SamplerKind::Ddim,
        SamplerKind::Pndm,
        SamplerKind::Euler,
        SamplerKind::EulerAncestral,
        SamplerKind::Dpmpp2m,
        SamplerKind::Dpmpp2mKarras,
        SamplerKind::Lcm,
    ];

    /// Its name in requests and results.
    pub fn name(self) -> &'static str {
        match self {
            SamplerKind::Ddim => "ddim",
            SamplerKind::Pndm => "pndm",
            SamplerKind::Euler => "euler",
            SamplerKind::EulerAncestral => "euler_ancestral",
            SamplerKind::Dpmpp2m => "dpmpp_2m",
            SamplerKind::Dpmpp2mKarras => "dpmpp_2m_karras",
            SamplerKind::Lcm => "lcm",
        }
    }

    /// Its name as A1111 spells it.
    pub fn label(self) -> &'static str {
        match self {
            SamplerKind::Ddim => "DDIM",
            SamplerKind::Pndm => "PLMS",
            SamplerKind::Euler => "Euler",
            SamplerKind::EulerAncestral => "Euler a",
            SamplerKind::Dpmpp2m => "DPM++ 2M",
            SamplerKind::Dpmpp2mKarras => "DPM++ 2M Karras",
            SamplerKind::Lcm => "LCM",
        }
    }
}

impl fmt::Display for SamplerKind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for SamplerKind {
    type Err = Error;

    /// Our names, A1111's, in any case, with blanks or underscores.
    fn from_str(text: &str) -> Result<SamplerKind, Error> {
        let plain = |name: &str| name.trim().to_lowercase().replace([' ', '-'], "_").replace("++", "pp");
        let wanted = plain(text);
        let known = |kind: &SamplerKind| wanted == kind.name() || wanted == plain(kind.label());
        let found = SamplerKind::ALL.into_iter().find(known).or(match wanted.as_str() {
            "dpm_pp_2m" => Some(SamplerKind::Dpmpp2m),
            "dpm_pp_2m_karras" => Some(SamplerKind::Dpmpp2mKarras),
            "k_euler" => Some(SamplerKind::Euler),
            "k_euler_a" => Some(SamplerKind::EulerAncestral),
            _ => None,
        });
        found.ok_or_else(|| Error::InvalidParam {
            field: "sampler_name",
            message: format!("\"{text}\" is unknown; known are {}", SamplerKind::ALL.map(SamplerKind::name).join(", ")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_known() {
        for kind in SamplerKind::ALL {
            assert_eq!(kind.name().parse::<SamplerKind>().unwrap(), kind);
            assert_eq!(kind.label().parse::<SamplerKind>().unwrap(), kind);
            assert_eq!(kind.label().to_uppercase().parse::<SamplerKind>().unwrap(), kind);
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let message = "Heun".parse::<SamplerKind>().unwrap_err().to_string();
        assert!(message.contains("Heun") && message.contains("dpmpp_2m_karras"), "{message}");
    }
}
