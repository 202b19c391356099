//! The token of a run: the text from which it is repeated.
//!
//! `wavetank/0.1.0/4f1c09be22d0a7e5/7`: version, digest of the scenario, seed. A token repeats a trace byte for byte in its own version and is refused in
//! every other.

use std::fmt;
use std::str::FromStr;

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
        }
    }

    /// Whether the token is of this scenario and this build.
    ///
    /// # Errors
    /// Why not, as a sentence.
    pub fn check(&self, scenario: &Scenario) -> Result<(), TokenError> {
        if self.version != VERSION {
            return Err(TokenError::Version(self.version.clone()));
        }
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
        write!(f, "{MARK}/{}/{}/{}", self.version, self.scenario, self.seed)
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Token, TokenError> {
        let parts: Vec<&str> = text.split('/').collect();
        let shape = || TokenError::Shape(text.to_owned());
        let [MARK, version, scenario, seed] = parts[..] else {
            return Err(shape());
        };
        let hex = scenario.len() == DIGITS && scenario.bytes().all(|b| b.is_ascii_hexdigit());
        let seed = seed.parse().map_err(|_| shape())?;
        if !hex || version.is_empty() {
            return Err(shape());
        }
        Ok(Token {
            version: version.to_owned(),
            scenario: scenario.to_owned(),
            seed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Token, TokenError, VERSION};
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
        let error = old.parse::<Token>().unwrap().check(&scenario).unwrap_err();
        assert!(error.to_string().contains("0.0.9"), "{error}");
    }

    #[test]
    fn anything_else_is_no_token() {
        for text in [
            "",
            "7",
            "wavetank/1/xyz/7",
            "wavetank/0.1.0/4f1c09be22d0a7e5/banana",
            "wavetank//4f1c09be22d0a7e5/1",
        ] {
            assert!(matches!(text.parse::<Token>(), Err(TokenError::Shape(_))), "{text}");
        }
    }
}
