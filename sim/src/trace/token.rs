//! The token of a run: the text from which it is repeated.
//!
//! `wavetank/0.1.0/4f1c09be22d0a7e5/7`: version, digest of the scenario, seed. A storm adds who picked and what (`explore/picks.rs`), a wrong driver adds its name:
//! `wavetank/0.1.0/4f1c09be22d0a7e5/7/storm=swarm:12+45.3/mutant=clone-retry-refused`. A driver that is not in the tank adds the link, its name and the digest of its profile:
//! `…/7/link=socket:csi.example.com:1f3a9b20`. A token repeats a trace byte for byte in its own version and is refused in every other.

use std::fmt;
use std::str::FromStr;

use crate::explore::{Picks, StrategyName};
use crate::scenario::Scenario;

/// What stands at the front.
const MARK: &str = "wavetank";
/// How many digits of the scenario's digest a token carries.
const DIGITS: usize = 16;
/// The version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Reproduces a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The version of wavetank.
    pub version: String,
    /// The first digits of the digest of the scenario.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// What a storm picked. Nothing for a run without a storm.
    pub storm: Option<Storm>,
    /// The bug that is switched on.
    pub mutant: Option<String>,
    /// The link, and the driver behind it, if it is not in the tank.
    pub link: Option<String>,
}

/// The storm of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storm {
    /// Which strategy picked; a storm is repeated without it.
    pub by: StrategyName,
    /// What it picked.
    pub picks: Picks,
}

/// Why a token cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It has another shape.
    #[error("`{0}` is no token: a token looks like `wavetank/{VERSION}/4f1c09be22d0a7e5/7`")]
    Shape(String),
    /// Another version made it.
    #[error("the token is of wavetank {0}, this is {VERSION}: a token repeats a run in its own version only")]
    Version(String),
    /// It is of a run around a driver that is not in the tank.
    #[error("the token is of a run around a driver outside ({0}): name its profile with --driver")]
    Outside(String),
    /// It is of a run around a driver in the tank.
    #[error("the token is of a run around a driver in the tank: leave out --driver")]
    Inside,
    /// It is of another driver, or of another profile of it.
    #[error(
        "the token is of a run around {token}, and the profile is of {found}: it is another driver, or its profile was changed since"
    )]
    Profile {
        /// The link and driver in the token.
        token: String,
        /// Those at hand.
        found: String,
    },
    /// It is of another scenario, or of this one before it was changed.
    #[error(
        "the token is of a scenario with the digest {token}, `{name}` has {found}: it is another scenario, or was changed since"
    )]
    Scenario {
        /// The digest in the token.
        token: String,
        /// The scenario at hand.
        name: String,
        /// Its digest.
        found: String,
    },
}

impl Token {
    /// The token of a run.
    pub fn new(scenario: &Scenario, seed: u64) -> Token {
        Token {
            version: VERSION.to_owned(),
            scenario: digest(scenario),
            seed,
            storm: None,
            mutant: None,
            link: None,
        }
    }

    /// The same run in a storm.
    #[must_use]
    pub fn storm(self, by: StrategyName, picks: Picks) -> Token {
        Token {
            storm: Some(Storm { by, picks }),
            ..self
        }
    }

    /// The same run with a bug switched on.
    #[must_use]
    pub fn mutant(self, mutant: Option<String>) -> Token {
        Token { mutant, ..self }
    }

    /// The same run around a driver that is not in the tank.
    #[must_use]
    pub fn link(self, link: Option<String>) -> Token {
        Token { link, ..self }
    }

    /// Whether the token is of a run around this driver: `None` for one in the tank.
    ///
    /// # Errors
    /// Why not, as a sentence.
    pub fn check_link(&self, link: Option<&str>) -> Result<(), TokenError> {
        match (&self.link, link) {
            (Some(token), Some(found)) if token != found => Err(TokenError::Profile {
                token: token.clone(),
                found: found.to_owned(),
            }),
            (Some(token), None) => Err(TokenError::Outside(token.clone())),
            (None, Some(_)) => Err(TokenError::Inside),
            (Some(_), Some(_)) | (None, None) => Ok(()),
        }
    }

    /// Whether the token is of this scenario.
    pub fn is_of(&self, scenario: &Scenario) -> bool {
        self.scenario == digest(scenario)
    }

    /// Whether the token is of this scenario.
    ///
    /// # Errors
    /// Why not, as a sentence.
    pub fn check(&self, scenario: &Scenario) -> Result<(), TokenError> {
        let found = digest(scenario);
        if self.scenario != found {
            return Err(TokenError::Scenario {
                token: self.scenario.clone(),
                name: scenario.name.clone(),
                found,
            });
        }
        Ok(())
    }
}

fn digest(scenario: &Scenario) -> String {
    scenario.digest().chars().take(DIGITS).collect()
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MARK}/{}/{}/{}", self.version, self.scenario, self.seed)?;
        if let Some(Storm { by, picks }) = &self.storm {
            write!(f, "/storm={by}:{picks}")?;
        }
        if let Some(mutant) = &self.mutant {
            write!(f, "/mutant={mutant}")?;
        }
        match &self.link {
            Some(link) => write!(f, "/link={link}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Token, TokenError> {
        let parts: Vec<&str> = text.split('/').collect();
        let shape = || TokenError::Shape(text.to_owned());
        let [MARK, version, scenario, seed, ref more @ ..] = parts[..] else {
            return Err(shape());
        };
        let hex = scenario.len() == DIGITS && scenario.bytes().all(|b| b.is_ascii_hexdigit());
        let seed = seed.parse().map_err(|_| shape())?;
        if !hex || version.is_empty() {
            return Err(shape());
        }
        if version != VERSION {
            // What another version writes behind the seed is its own business.
            return Err(TokenError::Version(version.to_owned()));
        }
        let mut token = Token {
            version: version.to_owned(),
            scenario: scenario.to_owned(),
            seed,
            storm: None,
            mutant: None,
            link: None,
        };
        for part in more {
            match part.split_once('=') {
                Some(("storm", storm)) if token.storm.is_none() && token.mutant.is_none() && token.link.is_none() => {
                    token.storm = Some(read_storm(storm).ok_or_else(shape)?);
                }
                Some(("mutant", name)) if token.mutant.is_none() && token.link.is_none() && !name.is_empty() => {
                    token.mutant = Some(name.to_owned());
                }
                Some(("link", link)) if token.link.is_none() && link.split(':').count() == 3 => {
                    token.link = Some(link.to_owned());
                }
                _ => return Err(shape()),
            }
        }
        Ok(token)
    }
}

fn read_storm(text: &str) -> Option<Storm> {
    let (by, picks) = text.split_once(':')?;
    Some(Storm {
        by: StrategyName::parse(by).ok()?,
        picks: picks.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::{Token, TokenError, VERSION};
    use crate::explore::StrategyName;
    use crate::scenario::Scenario;

    #[test]
    fn a_token_is_read_as_it_is_printed_and_checked_against_scenario_and_version() {
        let scenario = Scenario::builder("a").because("tokens").run("1s").build().unwrap();
        let other = Scenario::builder("b").because("tokens").run("5s").build().unwrap();
        let token = Token::new(&scenario, 7);
        let read: Token = token.to_string().parse().unwrap();
        assert_eq!(read, token);
        assert_eq!(read.check(&scenario), Ok(()));
        assert!(matches!(read.check(&other), Err(TokenError::Scenario { .. })));
        let old = token.to_string().replace(VERSION, "0.0.9");
        let error = old.parse::<Token>().unwrap_err();
        assert!(error.to_string().contains("0.0.9"), "{error}");
    }

    #[test]
    fn a_storm_and_a_mutant_are_part_of_a_token() {
        let scenario = Scenario::builder("a").because("tokens").run("1s").build().unwrap();
        let plain = Token::new(&scenario, 7);
        let picks = "12+45.3".parse().unwrap();
        let storm = plain.clone().storm(StrategyName::Swarm, picks);
        let infected = storm.clone().mutant(Some("clone-retry-refused".into()));
        assert!(
            infected
                .to_string()
                .ends_with("/7/storm=swarm:12+45.3/mutant=clone-retry-refused")
        );
        let empty = plain.clone().storm(StrategyName::Single, "".parse().unwrap());
        let outside = storm.clone().link(Some("socket:csi.example.com:1f3a9b20".into()));
        assert!(
            outside
                .to_string()
                .ends_with("/storm=swarm:12+45.3/link=socket:csi.example.com:1f3a9b20")
        );
        assert_eq!(outside.check_link(Some("socket:csi.example.com:1f3a9b20")), Ok(()));
        assert!(matches!(
            outside.check_link(Some("socket:other:1")),
            Err(TokenError::Profile { .. })
        ));
        assert!(matches!(outside.check_link(None), Err(TokenError::Outside(_))));
        assert_eq!(plain.check_link(Some("socket:other:1")), Err(TokenError::Inside));
        for token in [plain, storm, infected, empty, outside] {
            assert_eq!(token.to_string().parse::<Token>(), Ok(token));
        }
    }

    #[test]
    fn anything_else_is_no_token() {
        for text in [
            "",
            "7",
            "wavetank/1/xyz/7",
            "wavetank/0.1.0/4f1c09be22d0a7e5/banana",
            "wavetank//4f1c09be22d0a7e5/1",
            "wavetank/0.1.0/4f1c09be22d0a7e5/1/storm",
            "wavetank/0.1.0/4f1c09be22d0a7e5/1/storm=swram:1",
            "wavetank/0.1.0/4f1c09be22d0a7e5/1/storm=swarm:2+1",
            "wavetank/0.1.0/4f1c09be22d0a7e5/1/mutant=",
            "wavetank/0.1.0/4f1c09be22d0a7e5/1/link=socket",
            "wavetank/0.1.0/4f1c09be22d0a7e5/1/banana=3",
        ] {
            assert!(matches!(text.parse::<Token>(), Err(TokenError::Shape(_))), "{text}");
        }
    }
}
