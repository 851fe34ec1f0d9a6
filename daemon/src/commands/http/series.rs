//! How many images a request of the web API asks for, and their seeds.

use serde_json::{Map, Value, json};

use super::answer::HttpFault;
use crate::jobs::request::{MAX_PICTURES, whole};
use crate::random;

/// Makes `n_iter` and `seed` of what the request says, and gives a seed for each image; none where the seed is wrong, which
/// the device will say. A random one is drawn here, so that the seeds are known of a job that is interrupted, too.
pub(super) fn settle(keys: &mut Map<String, Value>) -> Result<Vec<u64>, HttpFault> {
    let count = count(keys)?;
    if keys.get("seed").is_none_or(|seed| whole(seed) == Some(-1)) {
        keys.insert("seed".to_owned(), json!(random::seed()));
    }
    let seed = keys.get("seed").and_then(|seed| seed.as_u64().or_else(|| u64::try_from(whole(seed)?).ok()));
    Ok(seed.map_or(vec![], |seed| (0..count).map(|index| seed.wrapping_add(index)).collect()))
}

/// A batch is painted one image after the other. Errors name the key that the client sent.
fn count(keys: &mut Map<String, Value>) -> Result<u64, HttpFault> {
    let mut number = |key: &str| {
        let Some(value) = keys.remove(key) else { return Ok(1) };
        let number = whole(&value).and_then(|number| u64::try_from(number).ok()).filter(|number| *number >= 1);
        number.ok_or_else(|| HttpFault::param(key, "expected a whole number from 1"))
    };
    let (runs, batch) = (number("n_iter")?, number("batch_size")?);
    let count = runs.saturating_mul(batch);
    if count > MAX_PICTURES {
        let key = if batch > 1 { "batch_size" } else { "n_iter" };
        let product = if runs > 1 && batch > 1 { format!("{batch} times n_iter = {runs}") } else { count.to_string() };
        let message = format!("{product} is out of range; up to {MAX_PICTURES} images are painted for a request");
        return Err(HttpFault::param(key, message));
    }
    if count > 1 {
        keys.insert("n_iter".to_owned(), json!(count));
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(request: Value) -> Result<(Value, Vec<u64>), HttpFault> {
        let Value::Object(mut keys) = request else { panic!("{request}") };
        let seeds = settle(&mut keys)?;
        Ok((Value::Object(keys), seeds))
    }

    #[test]
    fn each_image_has_the_seed_that_follows() {
        let batch = settled(json!({"batch_size": 2, "n_iter": 1.0, "seed": 7.0}));
        assert_eq!(batch, Ok((json!({"n_iter": 2, "seed": 7.0}), vec![7, 8])));
        let largest = settled(json!({"n_iter": 1, "seed": u64::MAX}));
        assert_eq!(largest, Ok((json!({"seed": u64::MAX}), vec![u64::MAX])));
        for random in [json!({}), json!({"seed": -1}), json!({"seed": -1.0})] {
            let (keys, seeds) = settled(random).unwrap();
            assert!(seeds.len() == 1 && keys["seed"] == seeds[0], "{keys}");
        }
        assert_eq!(settled(json!({"seed": "x"})), Ok((json!({"seed": "x"}), vec![])));
    }

    #[test]
    fn errors_name_the_key_that_the_client_sent() {
        for (request, field) in [
            (json!({"batch_size": 0}), "batch_size"),
            (json!({"batch_size": 17}), "batch_size"),
            (json!({"batch_size": 2, "n_iter": 1.5}), "n_iter"),
            (json!({"batch_size": 1, "n_iter": 17}), "n_iter"),
            (json!({"batch_size": 9, "n_iter": 9}), "batch_size"),
        ] {
            assert_eq!(settled(request).unwrap_err().field.as_deref(), Some(field));
        }
    }
}
