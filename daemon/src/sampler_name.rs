//! The samplers' names: ours, and those that the A1111 web interface shows and its users write.

use diffused_engine::sampler::Kind;

/// Each sampler with our name and the web interface's.
const NAMES: [(Kind, &str, &str); 7] = [
    (Kind::Ddim, "ddim", "DDIM"),
    (Kind::Pndm, "pndm", "PLMS"),
    (Kind::Euler, "euler", "Euler"),
    (Kind::EulerAncestral, "euler_ancestral", "Euler a"),
    (Kind::Dpmpp2m, "dpmpp_2m", "DPM++ 2M"),
    (Kind::Dpmpp2mKarras, "dpmpp_2m_karras", "DPM++ 2M Karras"),
    (Kind::Lcm, "lcm", "LCM"),
];

/// The sampler of a name, however it is capitalised.
pub fn parse(text: &str) -> Result<Kind, String> {
    let named =
        |(_, ours, theirs): &&(Kind, &str, &str)| text.eq_ignore_ascii_case(ours) || text.eq_ignore_ascii_case(theirs);
    let known = NAMES.iter().find(named).map(|(kind, ..)| *kind);
    known.ok_or_else(|| format!("`{text}` is unknown; there are {}", all().join(", ")))
}

/// The web interface's name.
pub fn label(kind: Kind) -> &'static str {
    NAMES.iter().find(|(known, ..)| *known == kind).map_or("", |(_, _, theirs)| theirs)
}

/// All of our names.
pub fn all() -> [&'static str; 7] {
    NAMES.map(|(_, ours, _)| ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_names_are_those_of_messages() {
        for (kind, ours, theirs) in NAMES {
            assert_eq!(serde_json::to_value(kind).unwrap(), ours);
            assert_eq!((parse(ours), parse(theirs)), (Ok(kind), Ok(kind)));
            assert_eq!(label(kind), theirs);
        }
    }

    #[test]
    fn an_unknown_name_is_told_the_known_ones() {
        assert_eq!(parse("EULER A"), Ok(Kind::EulerAncestral));
        assert!(parse("magic").unwrap_err().contains("dpmpp_2m_karras"));
    }
}
