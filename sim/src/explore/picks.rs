//! What was picked in a run, in the short form that tokens carry: which meeting, which fault of its menu.
//!
//! `12+45.3` means: at the 13th meeting of the run the first fault of the menu strikes, at the 46th the fourth. It is exact in the same version, for the same scenario
//! and seed, whichever strategy picked; across versions a replay file pins by site instead.

use std::fmt;
use std::str::FromStr;

use crate::storm::{Chooser, Meeting};

/// One pick.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pick {
    /// The meeting, counted from 0.
    pub meeting: u32,
    /// The place in its menu, from 0.
    pub entry: u32,
}

/// The picks of a run, by meeting.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Picks(pub Vec<Pick>);

impl Picks {
    /// A chooser that picks the same again.
    pub fn chooser(&self) -> Box<dyn Chooser> {
        Box::new(ByPlace {
            picks: self.0.clone(),
            met: 0,
        })
    }
}

/// Picks by the number of the meeting.
struct ByPlace {
    picks: Vec<Pick>,
    met: u32,
}

impl Chooser for ByPlace {
    fn choose(&mut self, meeting: &Meeting<'_>) -> Option<usize> {
        let nth = self.met;
        self.met += 1;
        let at = self.picks.binary_search_by_key(&nth, |pick| pick.meeting).ok()?;
        let entry = self.picks[at].entry as usize;
        (entry < meeting.menu.len()).then_some(entry)
    }
}

impl fmt::Display for Picks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, pick) in self.0.iter().enumerate() {
            if nth > 0 {
                f.write_str("+")?;
            }
            match pick.entry {
                0 => write!(f, "{}", pick.meeting)?,
                entry => write!(f, "{}.{entry}", pick.meeting)?,
            }
        }
        Ok(())
    }
}

impl FromStr for Picks {
    type Err = ();

    fn from_str(text: &str) -> Result<Picks, ()> {
        if text.is_empty() {
            return Ok(Picks::default());
        }
        let number = |text: &str| -> Result<u32, ()> {
            let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            plain.then(|| text.parse().ok()).flatten().ok_or(())
        };
        let mut picks: Vec<Pick> = Vec::new();
        for part in text.split('+') {
            let (meeting, entry) = part.split_once('.').unwrap_or((part, "0"));
            let pick = Pick {
                meeting: number(meeting)?,
                entry: number(entry)?,
            };
            if picks.last().is_some_and(|last| last.meeting >= pick.meeting) {
                return Err(());
            }
            picks.push(pick);
        }
        Ok(Picks(picks))
    }
}

#[cfg(test)]
mod tests {
    use super::{Pick, Picks};

    #[test]
    fn picks_are_read_as_they_are_printed() {
        let picks = Picks(vec![Pick { meeting: 12, entry: 0 }, Pick { meeting: 45, entry: 3 }]);
        assert_eq!(picks.to_string(), "12+45.3");
        assert_eq!("12+45.3".parse(), Ok(picks));
        assert_eq!("".parse(), Ok(Picks::default()));
        for wrong in ["x", "1+", "+1", "3+2", "3+3.1", "1.", "-1", "99999999999"] {
            assert!(wrong.parse::<Picks>().is_err(), "{wrong}");
        }
    }
}
