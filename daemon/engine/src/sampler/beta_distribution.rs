//! The beta distribution's quantile function, for the noise schedule of that name.

/// Halvings of the interval in which the quantile is searched: as many as f64 can tell apart.
const HALVINGS: usize = 200;
/// Terms of the continued fraction, which converges long before.
const TERMS: usize = 300;

/// Where the distribution function of the beta distribution with shapes `a` and `b` is `p`, from 0 to 1.
pub(super) fn quantile(p: f64, a: f64, b: f64) -> f64 {
    if p <= 0.0 {
        return 0.0;
    }
    if p >= 1.0 {
        return 1.0;
    }
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            break;
        }
        if distribution(middle, a, b) < p { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// The regularised incomplete beta function (DLMF 8.17.22), for x between 0 and 1.
fn distribution(x: f64, a: f64, b: f64) -> f64 {
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - distribution(1.0 - x, b, a);
    }
    let log_beta = libm::lgamma(a) + libm::lgamma(b) - libm::lgamma(a + b);
    let front = libm::exp(a * libm::log(x) + b * libm::log1p(-x) - log_beta) / a;
    front / continued_fraction(x, a, b)
}

/// From the last term to the first: 1 + d₁/(1 + d₂/(1 + …)).
fn continued_fraction(x: f64, a: f64, b: f64) -> f64 {
    let term = |n: usize| {
        let m = (n / 2) as f64;
        match n % 2 {
            0 => m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m)),
            _ => -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0)),
        }
    };
    (1..=TERMS).rev().fold(1.0, |rest, n| 1.0 + term(n) / rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By scipy.stats.beta.ppf.
    #[test]
    fn quantiles_are_scipys() {
        for (p, a, b, wanted) in [
            (0.1, 0.6, 0.6, 0.039_584_405_588_8),
            (0.25, 0.6, 0.6, 0.175_680_378_652_7),
            (0.5, 0.6, 0.6, 0.5),
            (0.9, 0.6, 0.6, 0.960_415_594_411_2),
            (0.3, 2.0, 5.0, 0.181_803_471_318_9),
        ] {
            let found = quantile(p, a, b);
            assert!((found - wanted).abs() < 1e-9, "{p} {a} {b}: {found:.13}, not {wanted:.13}");
        }
        assert_eq!((quantile(0.0, 0.6, 0.6), quantile(1.0, 0.6, 0.6)), (0.0, 1.0));
    }
}
