//! Decimal numbers of any length, as digits and an exponent.

/// ± digits × 10^exponent, without zeros at either end of the digits; zero has none, and the exponent 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Decimal {
    /// Whether there is a minus, even before a zero.
    pub is_negative: bool,
    /// ASCII digits.
    pub digits: Vec<u8>,
    /// Of the last digit.
    pub exponent: i32,
}

/// Exponents beyond this have no use in any type here, and sums of them can't overflow.
const EXPONENT_LIMIT: i64 = 1_000_000;

impl Decimal {
    /// Reads `[+-]digits[.digits][e[+-]digits]`, with a digit at least, and white space around it: what `numeric` takes.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut decimal = Self::default();
        decimal.read(text).then_some(decimal)
    }

    /// The same into this one, whose buffer is used again. After `false` it means nothing.
    pub fn read(&mut self, text: &[u8]) -> bool {
        self.digits.clear();
        self.exponent = 0;
        let text = text.trim_ascii();
        let (sign, rest) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        self.is_negative = sign;
        let digits_of = |bytes: &[u8]| bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let whole = digits_of(rest);
        let mut rest = &rest[whole..];
        let whole_digits = &text[text.len() - rest.len() - whole..][..whole];
        let mut fraction: &[u8] = &[];
        if let [b'.', after @ ..] = rest {
            let count = digits_of(after);
            (fraction, rest) = after.split_at(count);
        }
        if whole_digits.is_empty() && fraction.is_empty() {
            return false;
        }
        let Some(exponent) = exponent(rest) else { return false };
        self.digits.extend_from_slice(whole_digits);
        self.digits.extend_from_slice(fraction);
        let Ok(places) = i64::try_from(fraction.len()) else { return false };
        self.normalise(exponent - places)
    }

    fn normalise(&mut self, exponent: i64) -> bool {
        let zeros = self.digits.iter().rev().take_while(|digit| **digit == b'0').count();
        self.digits.truncate(self.digits.len() - zeros);
        let leading = self.digits.iter().take_while(|digit| **digit == b'0').count();
        self.digits.drain(..leading);
        if self.digits.is_empty() {
            self.exponent = 0;
            return true;
        }
        let exponent = exponent + i64::try_from(zeros).unwrap_or(EXPONENT_LIMIT);
        self.exponent = i32::try_from(exponent).unwrap_or(i32::MAX);
        exponent.abs() <= EXPONENT_LIMIT
    }

    /// The shortest decimal number that is read back as this double.
    pub fn read_f64(&mut self, value: f64) -> bool {
        value.is_finite() && self.read(zmij::Buffer::new().format_finite(value).as_bytes())
    }

    /// An integer.
    pub fn read_i64(&mut self, value: i64) {
        let read = self.read(itoa::Buffer::new().format(value).as_bytes());
        debug_assert!(read, "an integer is a decimal number");
    }

    /// Whether it is zero.
    pub fn is_zero(&self) -> bool {
        self.digits.is_empty()
    }

    /// How many digits stand before the point; negative if zeros follow the point.
    pub fn whole_digits(&self) -> i64 {
        self.digits.len() as i64 + i64::from(self.exponent)
    }

    /// The number times 10^scale, if that is an integer of 64 bits. `Err(true)`: it would have to be rounded; `Err(false)`: it is too big.
    pub fn scaled(&self, scale: i32) -> Result<i64, bool> {
        let exponent = self.exponent.saturating_add(scale);
        if self.is_zero() {
            return Ok(0);
        }
        if exponent < 0 {
            return Err(true);
        }
        if self.digits.len() as i64 + i64::from(exponent) > 19 {
            return Err(false);
        }
        let digits = self.digits.iter().fold(0_i128, |sum, digit| sum * 10 + i128::from(digit - b'0'));
        let value = digits * 10_i128.pow(exponent.unsigned_abs());
        i64::try_from(if self.is_negative { -value } else { value }).map_err(|_| false)
    }
}

fn exponent(text: &[u8]) -> Option<i64> {
    let rest = match text {
        [] => return Some(0),
        [b'e' | b'E', rest @ ..] => rest,
        _ => return None,
    };
    let (sign, digits) = match rest {
        [b'-', digits @ ..] => (-1, digits),
        [b'+', digits @ ..] => (1, digits),
        digits => (1, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value =
        digits.iter().fold(0_i64, |sum, digit| (sum * 10 + i64::from(digit - b'0')).min(EXPONENT_LIMIT * 4));
    Some(sign * value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Option<(bool, String, i32)> {
        Decimal::parse(text.as_bytes())
            .map(|d| (d.is_negative, String::from_utf8(d.digits).unwrap(), d.exponent))
    }

    #[test]
    fn one_number_has_one_form() {
        for (text, digits, exponent) in [
            ("10.10", "101", -1),
            (" +00101e-1 ", "101", -1),
            ("1e3", "1", 3),
            ("1000", "1", 3),
            ("0.00", "", 0),
            ("0e99", "", 0),
            (".5", "5", -1),
            ("5.", "5", 0),
        ] {
            assert_eq!(shown(text), Some((false, digits.to_owned(), exponent)), "{text}");
        }
        assert!(shown("-0").unwrap().0);
        for text in ["", ".", "e5", "1e", "1e+", "1 2", "0x10", "1_000", "Infinity", "--1", "1e9999999"] {
            assert_eq!(shown(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn integers_come_back(value: i64, scale in 0_i32..5) {
            let mut decimal = Decimal::default();
            decimal.read_i64(value);
            proptest::prop_assert_eq!(decimal.scaled(0), Ok(value));
            let expected = i128::from(value) * 10_i128.pow(scale.unsigned_abs());
            proptest::prop_assert_eq!(decimal.scaled(scale).ok(), i64::try_from(expected).ok());
        }

        #[test]
        fn nothing_panics(text in "[ +-]{0,2}[0-9]{0,30}\\.?[0-9]{0,30}([eE][+-]?[0-9]{0,12})?") {
            if let Some(decimal) = Decimal::parse(text.as_bytes()) {
                let _ = decimal.scaled(6);
                proptest::prop_assert!(decimal.digits.first() != Some(&b'0') && decimal.digits.last() != Some(&b'0'));
            }
        }
    }
}
