//! Medians over rounds. The machine may be shared: the spread is shown beside each of them.

/// What several rounds gave.
#[derive(Debug, Clone)]
pub struct Rounds {
    sorted: Vec<f64>,
}

impl Rounds {
    /// At least one figure is needed.
    pub fn new(mut figures: Vec<f64>) -> Self {
        assert!(!figures.is_empty(), "a median of nothing");
        figures.sort_by(f64::total_cmp);
        Self { sorted: figures }
    }

    /// The middle one, or the upper of the two in the middle.
    pub fn median(&self) -> f64 {
        self.sorted[self.sorted.len() / 2]
    }

    /// The least and the greatest.
    pub fn range(&self) -> (f64, f64) {
        (self.sorted[0], self.sorted[self.sorted.len() - 1])
    }
}

/// Lets two contestants take turns, `count` rounds each, the peer first.
pub fn take_turns<E>(
    count: usize,
    mut peer: impl FnMut() -> Result<f64, E>,
    mut ours: impl FnMut() -> Result<f64, E>,
) -> Result<(Rounds, Rounds), E> {
    let (mut of_peer, mut of_ours) = (Vec::new(), Vec::new());
    for _ in 0..count {
        of_peer.push(peer()?);
        of_ours.push(ours()?);
    }
    Ok((Rounds::new(of_peer), Rounds::new(of_ours)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_whatever_the_order() {
        let rounds = Rounds::new(vec![9.0, 1.0, 5.0]);
        assert_eq!((rounds.median(), rounds.range()), (5.0, (1.0, 9.0)));
    }
}
