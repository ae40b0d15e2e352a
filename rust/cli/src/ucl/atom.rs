//! Values without quotation marks: numbers, booleans, null, and everything else.

use super::Value;

/// What a word without quotation marks means.
///
/// # Errors
///
/// A number that is too large; the text says so.
pub(super) fn atom(word: &str) -> Result<Value, String> {
    match word.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => return Ok(Value::Bool(true)),
        "false" | "no" | "off" => return Ok(Value::Bool(false)),
        "null" => return Ok(Value::Null),
        _ => {}
    }
    let too_large = || format!("{word}: the number is too large");
    match number(word) {
        None => Ok(Value::Text(word.to_owned())),
        Some(Some(Value::Real(number))) if !number.is_finite() => Err(too_large()),
        Some(value) => value.ok_or_else(too_large),
    }
}

/// `None` if it is not a number, `Some(None)` if it is too large.
fn number(word: &str) -> Option<Option<Value>> {
    let (negative, digits) = word.strip_prefix('-').map_or((false, word), |rest| (true, rest));
    let sign = if negative { -1 } else { 1 };
    if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        let is_hex = !hex.is_empty() && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        return is_hex.then(|| Some(Value::Integer(i64::from_str_radix(hex, 16).ok()? * sign)));
    }
    let (mantissa, suffix) = digits.split_at(mantissa_len(digits)?);
    let (_, factor, is_time) =
        SUFFIXES.iter().find(|(name, ..)| name.eq_ignore_ascii_case(suffix)).copied()?;
    if is_time || mantissa.contains(['.', 'e', 'E']) {
        let number: f64 = mantissa.parse().ok()?;
        return Some(Some(Value::Real(number * factor * f64::from(sign as i32))));
    }
    // The sign is part of the parsed text, so that the lowest number is one.
    let signed = if negative { format!("-{mantissa}") } else { mantissa.to_owned() };
    let whole = signed.parse::<i64>().ok().and_then(|number| number.checked_mul(factor as i64));
    Some(whole.map(Value::Integer))
}

/// How long the decimal number is that `digits` begins with: `DIGITS[.DIGITS][e[+-]DIGITS]`.
fn mantissa_len(digits: &str) -> Option<usize> {
    let run = |from: usize| digits.bytes().skip(from).take_while(u8::is_ascii_digit).count();
    let mut len = Some(run(0)).filter(|len| *len > 0)?;
    if digits[len..].starts_with('.') {
        len += 1 + Some(run(len + 1)).filter(|len| *len > 0)?;
    }
    if digits[len..].starts_with(['e', 'E']) {
        let sign = usize::from(digits[len + 1..].starts_with(['+', '-']));
        len += 1 + sign + Some(run(len + 1 + sign)).filter(|len| *len > 0)?;
    }
    Some(len)
}

/// A suffix, its factor, and whether it makes a time of seconds.
const SUFFIXES: [(&str, f64, bool); 14] = [
    ("", 1.0, false),
    ("k", 1e3, false),
    ("m", 1e6, false),
    ("g", 1e9, false),
    ("kb", 1024.0, false),
    ("mb", 1_048_576.0, false),
    ("gb", 1_073_741_824.0, false),
    ("ms", 0.001, true),
    ("s", 1.0, true),
    ("min", 60.0, true),
    ("h", 3600.0, true),
    ("d", 86_400.0, true),
    ("w", 604_800.0, true),
    ("y", 31_536_000.0, true),
];
