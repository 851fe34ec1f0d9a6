//! The samplers' names: ours, and those that A1111's web interface made known.

use std::fmt;
use std::str::FromStr;

use super::SamplerKind;
use crate::error::Error;

impl SamplerKind {
    /// Every sampler.
    pub const ALL: [SamplerKind; 17] = [
        SamplerKind::Ddim,
        SamplerKind::Pndm,
        SamplerKind::Euler,
        SamplerKind::EulerAncestral,
        SamplerKind::Heun,
        SamplerKind::Lms,
        SamplerKind::Dpm2,
        SamplerKind::Dpm2Ancestral,
        SamplerKind::Dpmpp2s,
        SamplerKind::Dpmpp2m,
        SamplerKind::Dpmpp2mKarras,
        SamplerKind::Dpmpp2mSde,
        SamplerKind::DpmppSde,
        SamplerKind::Unipc,
        SamplerKind::Deis,
        SamplerKind::Lcm,
        SamplerKind::Tcd,
    ];

    /// Its name in requests and results.
    pub fn name(self) -> &'static str {
        match self {
            SamplerKind::Ddim => "ddim",
            SamplerKind::Pndm => "pndm",
            SamplerKind::Euler => "euler",
            SamplerKind::EulerAncestral => "euler_ancestral",
            SamplerKind::Heun => "heun",
            SamplerKind::Lms => "lms",
            SamplerKind::Dpm2 => "dpm2",
            SamplerKind::Dpm2Ancestral => "dpm2_ancestral",
            SamplerKind::Dpmpp2s => "dpmpp_2s",
            SamplerKind::Dpmpp2m => "dpmpp_2m",
            SamplerKind::Dpmpp2mKarras => "dpmpp_2m_karras",
            SamplerKind::Dpmpp2mSde => "dpmpp_2m_sde",
            SamplerKind::DpmppSde => "dpmpp_sde",
            SamplerKind::Unipc => "unipc",
            SamplerKind::Deis => "deis",
            SamplerKind::Lcm => "lcm",
            SamplerKind::Tcd => "tcd",
        }
    }

    /// Its name as A1111 spells it.
    pub fn label(self) -> &'static str {
        match self {
            SamplerKind::Ddim => "DDIM",
            SamplerKind::Pndm => "PLMS",
            SamplerKind::Euler => "Euler",
            SamplerKind::EulerAncestral => "Euler a",
            SamplerKind::Heun => "Heun",
            SamplerKind::Lms => "LMS",
            SamplerKind::Dpm2 => "DPM2",
            SamplerKind::Dpm2Ancestral => "DPM2 a",
            SamplerKind::Dpmpp2s => "DPM++ 2S",
            SamplerKind::Dpmpp2m => "DPM++ 2M",
            SamplerKind::Dpmpp2mKarras => "DPM++ 2M Karras",
            SamplerKind::Dpmpp2mSde => "DPM++ 2M SDE",
            SamplerKind::DpmppSde => "DPM++ SDE",
            SamplerKind::Unipc => "UniPC",
            SamplerKind::Deis => "DEIS",
            SamplerKind::Lcm => "LCM",
            SamplerKind::Tcd => "TCD",
        }
    }
}

impl fmt::Display for SamplerKind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name as it is compared: in lower case, with underscores between its words.
pub(super) fn plain(name: &str) -> String {
    name.trim().to_lowercase().replace([' ', '-'], "_").replace("++", "pp")
}

impl FromStr for SamplerKind {
    type Err = Error;

    /// Our names, A1111's, in any case, with blanks or underscores.
    fn from_str(text: &str) -> Result<SamplerKind, Error> {
        let wanted = plain(text);
        let known = |kind: &SamplerKind| wanted == kind.name() || wanted == plain(kind.label());
        let found = SamplerKind::ALL.into_iter().find(known).or(match wanted.as_str() {
            "dpm_pp_2m" => Some(SamplerKind::Dpmpp2m),
            "dpm_pp_2m_karras" => Some(SamplerKind::Dpmpp2mKarras),
            "dpm_2" => Some(SamplerKind::Dpm2),
            "dpm_2_ancestral" | "dpm_2_a" => Some(SamplerKind::Dpm2Ancestral),
            "dpm_pp_sde" => Some(SamplerKind::DpmppSde),
            "dpm_pp_2m_sde" => Some(SamplerKind::Dpmpp2mSde),
            "uni_pc" => Some(SamplerKind::Unipc),
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
        let message = "Restart".parse::<SamplerKind>().unwrap_err().to_string();
        assert!(message.contains("Restart") && message.contains("dpmpp_2m_karras"), "{message}");
    }
}
