//! Quantities: `1Gi`, `1.5G`, `100m`, `1e9`, to bytes and back.
//!
//! Follows apimachinery's `resource.Quantity`: fractions of a byte are rounded up, anything finer than a billionth as well, and what exceeds a
//! signed 64-bit integer is capped. The canonical form is the one the real server stores and prints.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Billionths in one.
const UNIT: i128 = 1_000_000_000;
/// The largest amount that a Kubernetes quantity holds.
const MAX: i128 = i64::MAX as i128;
const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// Why a text is no quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// No digits, two dots, or foreign characters.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Shape,
    /// A suffix that does not exist, such as `GB` or `gi`.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// In which family of suffixes a quantity was written, and is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Binary,
    Decimal,
    Exponent,
}

/// A parsed quantity, exact to a billionth.
#[derive(Clone, Copy, Debug)]
pub struct Amount {
    nanos: i128,
    format: Format,
}

impl PartialEq for Amount {
    fn eq(&self, other: &Amount) -> bool {
        self.nanos == other.nanos
    }
}

impl Amount {
    /// Reads a quantity.
    ///
    /// # Errors
    /// When the text has another shape, or a suffix that does not exist.
    pub fn parse(text: &str) -> Result<Amount, QuantityError> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (scale, format) = scale_of(suffix)?;
        let magnitude = billionths(number, scale)?;
        Ok(Amount {
            nanos: if negative { -magnitude } else { magnitude },
            format,
        })
    }

    /// Whole units, rounded up; negative amounts are 0.
    pub fn ceil(self) -> u64 {
        u64::try_from(div_ceil(self.nanos.max(0), UNIT)).expect("capped when parsed")
    }

    /// Whether it is below zero.
    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// The text that the server stores.
    pub fn canonical(self) -> String {
        if self.nanos == 0 {
            return "0".into();
        }
        if self.format == Format::Binary && self.nanos.abs() >= 1024 * UNIT {
            let whole = self.nanos.signum() * div_ceil(self.nanos.abs(), UNIT);
            return with_suffix(whole, 1024, &BINARY);
        }
        if self.format != Format::Exponent {
            return with_suffix(self.nanos, 1000, &DECIMAL);
        }
        let (mut value, mut power) = (self.nanos, -9);
        while value % 1000 == 0 {
            (value, power) = (value / 1000, power + 3);
        }
        if power == 0 {
            value.to_string()
        } else {
            format!("{value}e{power}")
        }
    }
}

/// Bytes of a quantity, rounded up; 0 for what is none (the server lets no such thing in) or is negative.
pub fn bytes(quantity: &Quantity) -> u64 {
    Amount::parse(&quantity.0).map_or(0, Amount::ceil)
}

/// Bytes as a quantity in canonical form: `1Gi`, `1536Mi`, `1000`.
pub fn quantity(bytes: u64) -> Quantity {
    Quantity(format_bytes(bytes))
}

/// Bytes in canonical form: `1Gi`, `1536Mi`, `1000`.
pub fn format_bytes(bytes: u64) -> String {
    let (mut value, mut power) = (bytes, 0);
    while value != 0 && value % 1024 == 0 && power + 1 < BINARY.len() {
        (value, power) = (value / 1024, power + 1);
    }
    format!("{value}{}", BINARY[power])
}

/// Brings a quantity into the form that the server stores; leaves alone what is none.
pub fn canonicalise(quantity: &mut Quantity) {
    let Ok(amount) = Amount::parse(&quantity.0) else { return };
    let canonical = amount.canonical();
    if quantity.0 != canonical {
        quantity.0 = canonical;
    }
}

/// Multiplier as (base, power), and the family of the suffix.
fn scale_of(suffix: &str) -> Result<((i128, i32), Format), QuantityError> {
    if let Some(power) = DECIMAL.iter().position(|s| *s == suffix) {
        return Ok(((1000, small(power) - 3), Format::Decimal));
    }
    if let Some(power) = BINARY.iter().position(|s| *s == suffix) {
        return Ok(((1024, small(power)), Format::Binary));
    }
    let power = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
    let power: i32 = power.parse().map_err(|_| QuantityError::Suffix)?;
    Ok(((10, power.clamp(-100, 100)), Format::Exponent))
}

fn small(power: usize) -> i32 {
    i32::try_from(power).expect("an index into a table of ten")
}

/// `number × base^power` in billionths, rounded up and capped.
fn billionths(number: &str, (base, power): (i128, i32)) -> Result<i128, QuantityError> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return Err(QuantityError::Shape);
    }
    let mut digits: i128 = 0;
    for digit in whole.bytes().chain(fraction.bytes()).take(38) {
        digits = digits.saturating_mul(10).saturating_add(i128::from(digit - b'0'));
    }
    if digits == 0 {
        return Ok(0);
    }
    let mut value = Some(digits);
    let mut divisor: i128 = 1;
    for _ in 0..fraction.len().min(30) {
        divisor = divisor.saturating_mul(10);
    }
    value = value.and_then(|v| v.checked_mul(UNIT));
    for _ in 0..power.unsigned_abs() {
        if power > 0 && divisor % base == 0 {
            divisor /= base;
        } else if power > 0 {
            value = value.and_then(|v| v.checked_mul(base));
        } else {
            divisor = divisor.saturating_mul(base);
        }
    }
    Ok(value.map_or(MAX * UNIT, |v| div_ceil(v, divisor)).min(MAX * UNIT))
}

fn div_ceil(value: i128, by: i128) -> i128 {
    value / by + i128::from(value % by != 0)
}

/// Divides by `base` as long as nothing is lost.
fn with_suffix(mut value: i128, base: i128, suffixes: &[&str]) -> String {
    let mut power = 0;
    while value % base == 0 && power + 1 < suffixes.len() {
        (value, power) = (value / base, power + 1);
    }
    format!("{value}{}", suffixes[power])
}

#[cfg(test)]
mod tests {
    use super::{Amount, QuantityError, bytes, format_bytes, quantity};
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    #[test]
    fn texts_become_bytes_and_canonical_texts() {
        let table = [
            ("0", 0, "0"),
            ("0Gi", 0, "0"),
            ("1Gi", 1 << 30, "1Gi"),
            ("1024Mi", 1 << 30, "1Gi"),
            ("1.5Gi", 3 << 29, "1536Mi"),
            ("1000", 1000, "1k"),
            ("1024", 1024, "1024"),
            ("1536Mi", 1536 << 20, "1536Mi"),
            ("0.5Ki", 512, "512"),
            ("1k", 1000, "1k"),
            ("1500k", 1_500_000, "1500k"),
            ("2M", 2_000_000, "2M"),
            ("1G", 1_000_000_000, "1G"),
            ("1.5", 2, "1500m"),
            ("100m", 1, "100m"),
            ("1n", 1, "1n"),
            ("0.0000000001", 1, "1n"),
            ("1e9", 1_000_000_000, "1e9"),
            ("1E3", 1000, "1e3"),
            ("12e-1", 2, "1200e-3"),
            ("1E", 1_000_000_000_000_000_000, "1E"),
            ("+5Gi", 5 << 30, "5Gi"),
            ("-5Gi", 0, "-5Gi"),
            (".5Gi", 1 << 29, "512Mi"),
            ("1Ti", 1 << 40, "1Ti"),
            ("7Ei", 7 << 60, "7Ei"),
            ("100Ei", i64::MAX as u64, "9223372036854775807"),
            (
                "99999999999999999999999999999999999999999",
                i64::MAX as u64,
                "9223372036854775807",
            ),
        ];
        for (text, expected, canonical) in table {
            let amount = Amount::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(amount.ceil(), expected, "{text}");
            assert_eq!(amount.canonical(), canonical, "{text}");
        }
    }

    #[test]
    fn what_people_mistype_is_refused() {
        for text in ["", "Gi", "1.2.3", ".", "--1", "1 Gi"] {
            assert!(Amount::parse(text).is_err(), "{text}");
        }
        for text in ["5GB", "5gi", "5mi", "5K", "1e", "1ee3"] {
            assert_eq!(Amount::parse(text).unwrap_err(), QuantityError::Suffix, "{text}");
        }
    }

    #[test]
    fn bytes_are_written_with_the_largest_suffix_that_loses_nothing() {
        for (value, text) in [
            (0, "0"),
            (1, "1"),
            (1000, "1000"),
            (1 << 10, "1Ki"),
            (1536 << 20, "1536Mi"),
            ((1 << 30) + 1, "1073741825"),
            (4 << 60, "4Ei"),
        ] {
            assert_eq!(format_bytes(value), text);
            assert_eq!(bytes(&quantity(value)), value, "there and back");
        }
        assert_eq!(bytes(&Quantity("nonsense".into())), 0);
    }
}
