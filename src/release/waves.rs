//! Waves: groups of stores that become live one after another.

use indexmap::IndexMap;

use super::Error;
use crate::config::nearest;
use crate::store::StoreId;

/// The name of the wave with all stores that no other wave has.
const REST: &str = "rest";

/// The waves of a command line, such as `10%,50%` or `canary,rest`, in order. Stores that no wave has
/// are the last wave. Waves without a store are left out.
pub fn waves(
    wanted: &[String],
    stores: &[StoreId],
    named: &IndexMap<String, Vec<String>>,
) -> Result<Vec<Vec<StoreId>>, Error> {
    let mut waves: Vec<Vec<StoreId>> = Vec::new();
    let mut left = stores.to_vec();
    let mut rest_at = None;
    check_order(wanted)?;
    for (position, wave) in wanted.iter().enumerate() {
        let members: Vec<StoreId> = if wave == REST && !named.contains_key(REST) {
            rest_at = Some(position);
            Vec::new()
        } else if let Some(percent) = wave.strip_suffix('%') {
            let until = share(percent, wave, stores.len())?;
            let begun = stores.len() - left.len();
            left.iter()
                .take(until.saturating_sub(begun))
                .cloned()
                .collect()
        } else {
            let ids = named.get(wave).ok_or_else(|| unknown(wave, named))?;
            let is_member = |store: &&StoreId| ids.iter().any(|id| id == store.as_str());
            left.iter().filter(is_member).cloned().collect()
        };
        left.retain(|store| !members.contains(store));
        waves.push(members);
    }
    match rest_at {
        Some(position) => waves[position] = left,
        None => waves.push(left),
    }
    waves.retain(|wave| !wave.is_empty());
    Ok(waves)
}

/// Fails if a group is named twice, or a percentage is not larger than the one before it: such a wave
/// is always empty.
fn check_order(wanted: &[String]) -> Result<(), Error> {
    let mut last = 0;
    for (position, wave) in wanted.iter().enumerate() {
        let refused = |help: &str| {
            let (wave, help) = (wave.clone(), help.to_owned());
            Err(Error::Wave { wave, help })
        };
        if wanted[..position].contains(wave) {
            return refused("name each wave once");
        }
        let percent = wave.strip_suffix('%').and_then(|it| it.trim().parse().ok());
        if let Some(percent) = percent {
            let percent: usize = percent;
            if position > 0 && percent <= last {
                return refused(
                    "each percentage is larger than the one before it, such as `10%,50%`",
                );
            }
            last = percent;
        }
    }
    Ok(())
}

/// The stores up to this percentage of all, rounded up.
fn share(percent: &str, wave: &str, all: usize) -> Result<usize, Error> {
    let percent: usize = percent.trim().parse().unwrap_or_default();
    if percent == 0 || percent > 100 {
        return Err(Error::Wave {
            wave: wave.to_owned(),
            help: "a percentage is a whole number from 1 to 100, such as `10%`".into(),
        });
    }
    Ok((all * percent).div_ceil(100))
}

fn unknown(wave: &str, named: &IndexMap<String, Vec<String>>) -> Error {
    let known = named.keys().map(String::as_str);
    let help = match nearest(wave, known.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if named.is_empty() => {
            "name groups of stores in `deploy.waves` of `alokai.config.json`, or give percentages, such as `10%,50%`".into()
        }
        None => format!(
            "the waves of `deploy.waves` are {}; `rest` has all other stores",
            known.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        ),
    };
    Error::Wave {
        wave: wave.to_owned(),
        help,
    }
}

#[cfg(test)]
mod tests {
    use indexmap::IndexMap;

    use super::waves;
    use crate::store::StoreId;

    fn of(wanted: &str, count: usize) -> Result<Vec<String>, String> {
        let stores: Vec<_> = (0..count)
            .map(|number| StoreId::new(&format!("s{number}")).unwrap())
            .collect();
        let named = [("canary", vec!["s3", "s1", "other"]), ("none", vec![])];
        let named: IndexMap<String, Vec<String>> = named
            .into_iter()
            .map(|(name, ids)| (name.into(), ids.into_iter().map(String::from).collect()))
            .collect();
        let wanted: Vec<String> = wanted.split(',').map(str::to_owned).collect();
        let waves = waves(&wanted, &stores, &named).map_err(|error| error.to_string())?;
        let text = waves.into_iter().map(|wave| {
            let ids: Vec<String> = wave.iter().map(ToString::to_string).collect();
            ids.join(" ")
        });
        Ok(text.collect())
    }

    #[test]
    fn every_store_is_in_one_wave_and_the_order_is_that_of_the_command() {
        assert_eq!(of("10%,50%", 4).unwrap(), ["s0", "s1", "s2 s3"]);
        assert_eq!(of("100%", 2).unwrap(), ["s0 s1"]);
        assert_eq!(of("canary,rest", 5).unwrap(), ["s1 s3", "s0 s2 s4"]);
        assert_eq!(of("canary", 5).unwrap(), ["s1 s3", "s0 s2 s4"]);
        assert_eq!(of("rest,canary", 5).unwrap(), ["s0 s2 s4", "s1 s3"]);
        assert_eq!(of("none,canary,50%", 5).unwrap(), ["s1 s3", "s0", "s2 s4"]);
    }

    #[test]
    fn a_wave_that_is_always_empty_is_refused() {
        for (waves, wrong) in [
            ("50%,10%", "10%"),
            ("50%,50%", "50%"),
            ("50%, 50%", " 50%"),
            ("10%,canary,5%", "5%"),
            ("canary,canary", "canary"),
            ("rest,canary,rest", "rest"),
        ] {
            let error = of(waves, 4).unwrap_err();
            assert!(error.contains(&format!("`{wrong}`")), "{waves}: {error}");
        }
    }

    #[test]
    fn a_wave_that_is_not_known_is_refused() {
        for wrong in ["canari", "0%", "101%", "half%", "-1%", ""] {
            let error = of(wrong, 3).unwrap_err();
            assert!(error.contains(&format!("`{wrong}`")), "{error}");
        }
    }
}
