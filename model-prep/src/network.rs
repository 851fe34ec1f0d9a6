//! A network while it is put together: operators in the order in which they run, and the weights that they name.
//!
//! The builder knows nothing of quantization beyond which matrices are int8; who quantizes activations is decided
//! afterwards, when all consumers of a value are known (`onnx`).

mod links;
mod onnx;

use diffused_engine::layer::{Activation, Layer, Padding};
use diffused_kernels::pack::Format;
pub(crate) use links::ChannelLink;

use crate::parameter::{InputPart, Parameter, ParameterShape};

/// The format of a matrix of `k` inputs in a bundle whose matrices are in `weights`.
fn matrix_format(weights: Format, k: usize, precise: bool) -> Format {
    match weights {
        Format::F32 => Format::F32,
        Format::Int8 if !precise && k.is_multiple_of(4) => Format::Int8,
        Format::Int8 | Format::F16 => Format::F16,
    }
}

/// What flows between operators: which value, and how many channels it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Value {
    id: usize,
    pub(crate) channels: usize,
}

/// What a node does.
#[derive(Debug, Clone, PartialEq)]
enum Op {
    Layer(Layer),
    /// Channels side by side, along the last axis.
    Concat {
        axis: usize,
        /// Channels of the first.
        first: usize,
    },
    /// To f16 for waiting.
    ToHalf,
    /// Back to f32.
    ToFloat,
}

#[derive(Debug, Clone)]
struct Node {
    name: String,
    op: Op,
    inputs: Vec<usize>,
    output: usize,
}

#[derive(Debug, Clone)]
struct Input {
    name: &'static str,
    ids: bool,
    dims: Vec<Dim>,
}

/// A dimension of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dim {
    /// Known when a picture is asked for.
    Any(&'static str),
    /// Of the model.
    Fixed(usize),
}

/// A finished network.
#[derive(Debug, Clone)]
pub(crate) struct BuiltNetwork {
    /// Its name in the bundle.
    pub(crate) name: &'static str,
    inputs: Vec<Input>,
    nodes: Vec<Node>,
    output: (&'static str, usize),
    /// Its weights in order of first use.
    pub(crate) parameters: Vec<Parameter>,
}

impl BuiltNetwork {
    /// Its layers, by the names of their nodes.
    #[cfg(test)]
    pub(crate) fn layers_mut(&mut self) -> impl Iterator<Item = (&str, &mut Layer)> {
        self.nodes.iter_mut().filter_map(|node| match &mut node.op {
            Op::Layer(layer) => Some((node.name.as_str(), layer)),
            _ => None,
        })
    }

    /// Bytes of its weights.
    pub(crate) fn bytes(&self) -> u64 {
        self.parameters.iter().map(Parameter::bytes).sum()
    }
}

/// A convolution's settings beside its weight and features.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Conv {
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) padding: Padding,
    pub(crate) upsample: bool,
    /// What the input is enlarged to the size of; without one it is doubled.
    pub(crate) size: Option<Value>,
    pub(crate) time: Option<Value>,
    pub(crate) residual: Option<Value>,
    /// Never in int8.
    pub(crate) precise: bool,
    /// The unit in which the result is rounded to half precision, unless the bundle is exact.
    pub(crate) half: Option<usize>,
    /// There is a bias.
    pub(crate) bias: bool,
    /// What is negative in the result becomes 0.
    pub(crate) relu: bool,
}

impl Default for Conv {
    fn default() -> Conv {
        Conv {
            kernel: 3,
            stride: 1,
            padding: Padding::Same,
            upsample: false,
            size: None,
            time: None,
            residual: None,
            precise: false,
            half: None,
            bias: true,
            relu: false,
        }
    }
}

/// A linear layer's settings beside its weight and features.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Linear {
    pub(crate) bias: bool,
    pub(crate) activation: Activation,
    pub(crate) residual: Option<Value>,
    /// Never in int8.
    pub(crate) precise: bool,
}

impl Default for Linear {
    fn default() -> Linear {
        Linear { bias: true, activation: Activation::None, residual: None, precise: false }
    }
}

/// A normalisation's settings beside its weight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GroupNorm {
    pub(crate) groups: usize,
    pub(crate) eps: f32,
    pub(crate) silu: bool,
}

/// An attention's settings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attention {
    pub(crate) heads: usize,
    /// A token sees itself and those before it.
    pub(crate) causal: bool,
    /// Keys and values are a text's.
    pub(crate) cross: bool,
}

/// Puts a network together.
pub(crate) struct Builder {
    weights: Format,
    inputs: Vec<Input>,
    nodes: Vec<Node>,
    parameters: Vec<Parameter>,
    values: usize,
}

impl Builder {
    /// An empty network.
    pub(crate) fn new(weights: Format) -> Builder {
        Builder { weights, inputs: Vec::new(), nodes: Vec::new(), parameters: Vec::new(), values: 0 }
    }

    /// An input of numbers; its last dimension, where known, is its channels.
    pub(crate) fn input(&mut self, name: &'static str, dims: &[Dim]) -> Value {
        self.add_input(name, false, dims)
    }

    /// An input of token ids.
    pub(crate) fn ids(&mut self, name: &'static str, dims: &[Dim]) -> Value {
        self.add_input(name, true, dims)
    }

    fn add_input(&mut self, name: &'static str, ids: bool, dims: &[Dim]) -> Value {
        debug_assert_eq!(self.values, self.inputs.len(), "inputs come first");
        self.inputs.push(Input { name, ids, dims: dims.to_vec() });
        let channels = match dims.last() {
            Some(Dim::Fixed(channels)) => *channels,
            _ => 0,
        };
        self.value(channels)
    }

    fn value(&mut self, channels: usize) -> Value {
        self.values += 1;
        Value { id: self.values - 1, channels }
    }

    fn node(&mut self, name: &str, op: Op, inputs: &[Value], channels: usize) -> Value {
        let output = self.value(channels);
        let inputs = inputs.iter().map(|value| value.id).collect();
        self.nodes.push(Node { name: name.to_owned(), op, inputs, output: output.id });
        output
    }

    fn parameter(&mut self, name: &str, shape: ParameterShape) -> String {
        self.parameters.push(Parameter::new(name, shape));
        name.to_owned()
    }

    /// Token ids to embeddings: `tokens` has `vocabulary` rows, `positions` has `length`.
    pub(crate) fn embedding(
        &mut self,
        ids: Value,
        name: &str,
        (vocabulary, length): (usize, usize),
        channels: usize,
    ) -> Value {
        let half = self.weights != Format::F32;
        let table = |rows| ParameterShape::Table { rows, columns: channels, half };
        let tokens = self.parameter(&format!("{name}.token_embedding"), table(vocabulary));
        let positions = self.parameter(&format!("{name}.position_embedding"), table(length));
        self.node(name, Op::Layer(Layer::Embedding { tokens, positions }), &[ids], channels)
    }

    /// Numbers to their sinusoidal embeddings, side by side.
    pub(crate) fn time_embedding(&mut self, x: Value, name: &str, channels: usize, flip: bool, shift: f32) -> Value {
        let layer = Layer::TimeEmbedding { channels, flip_sin_to_cos: flip, freq_shift: shift };
        self.node(name, Op::Layer(layer), &[x], x.channels * channels)
    }

    /// A linear layer.
    pub(crate) fn linear(&mut self, x: Value, name: &str, features: usize, settings: Linear) -> Value {
        let Linear { bias, activation, residual, precise } = settings;
        let format = matrix_format(self.weights, x.channels, precise);
        let gated = activation == Activation::Geglu;
        let n = if gated { 2 * features } else { features };
        let weight = self.parameter(
            name,
            ParameterShape::Matrix { n, k: x.channels, kernel: 1, bias, gated, phases: false, format },
        );
        let residual_there = residual.is_some();
        let layer = Layer::Linear { weight, features, activation, residual: residual_there, quantize: false };
        let inputs: Vec<Value> = [Some(x), residual].into_iter().flatten().collect();
        self.node(name, Op::Layer(layer), &inputs, features)
    }

    /// A convolution.
    pub(crate) fn conv(&mut self, x: Value, name: &str, features: usize, settings: Conv) -> Value {
        let Conv { kernel, stride, padding, upsample, size, time, residual, precise, half, bias, relu } = settings;
        let format = matrix_format(self.weights, x.channels, precise);
        let phases = upsample && size.is_none() && (kernel, stride, padding) == (3, 1, Padding::Same);
        let shape = ParameterShape::Matrix { n: features, k: x.channels, kernel, bias, gated: false, phases, format };
        let weight = self.parameter(name, shape);
        let layer = Layer::Conv2d {
            weight,
            features,
            kernel,
            stride,
            padding,
            upsample,
            size: size.is_some(),
            time: time.is_some(),
            residual: residual.is_some(),
            half: half.filter(|_| self.weights != Format::F32).unwrap_or(0),
            relu,
            slopes: None,
        };
        let inputs: Vec<Value> = [Some(x), time, residual, size].into_iter().flatten().collect();
        self.node(name, Op::Layer(layer), &inputs, features)
    }

    /// A 1×1 convolution. In int8 channels that were joined are convolved each part for itself and the results added up:
    /// what comes from two places differs in size, and with one scale for both the smaller is left with few bits (Li et
    /// al. 2023, "Q-Diffusion").
    pub(crate) fn pointwise(&mut self, x: Value, name: &str, features: usize) -> Value {
        let settings = Conv { kernel: 1, ..Conv::default() };
        let int8 = matrix_format(self.weights, x.channels, false) == Format::Int8;
        let Some([a, b]) = self.joined(x).filter(|_| int8) else { return self.conv(x, name, features, settings) };
        let onto = self.conv(a, name, features, settings);
        self.cut_last(InputPart { first: 0, whole: x.channels });
        let settings = Conv { bias: false, residual: Some(onto), ..settings };
        let sum = self.conv(b, &InputPart::second(name), features, settings);
        self.cut_last(InputPart { first: a.channels, whole: x.channels });
        sum
    }

    /// What `x` was joined of.
    fn joined(&self, x: Value) -> Option<[Value; 2]> {
        let node = self.nodes.iter().find(|node| node.output == x.id)?;
        match (&node.op, &node.inputs[..]) {
            (Op::Concat { first, .. }, &[a, b]) => {
                Some([Value { id: a, channels: *first }, Value { id: b, channels: x.channels - first }])
            }
            _ => None,
        }
    }

    /// The last parameter has some inputs of the source's matrix.
    fn cut_last(&mut self, part: InputPart) {
        if let Some(parameter) = self.parameters.last_mut() {
            parameter.part = Some(part);
        }
    }

    /// PReLU of `x`, the result of a convolution, which then does this, too.
    pub(crate) fn prelu(&mut self, x: Value, name: &str) {
        let parameter = self.parameter(name, ParameterShape::Slopes { channels: x.channels });
        match self.nodes.iter_mut().find(|node| node.output == x.id).map(|node| &mut node.op) {
            Some(Op::Layer(Layer::Conv2d { slopes, .. })) => *slopes = Some(parameter),
            other => unreachable!("PReLU follows convolutions, not {other:?}"),
        }
    }

    /// A group normalisation.
    pub(crate) fn group_norm(&mut self, x: Value, name: &str, settings: GroupNorm) -> Value {
        let GroupNorm { groups, eps, silu } = settings;
        let weight = self.parameter(name, ParameterShape::Norm { channels: x.channels });
        let layer = Layer::GroupNorm { weight, groups, eps, silu, quantize: false };
        self.node(name, Op::Layer(layer), &[x], x.channels)
    }

    /// A layer normalisation.
    pub(crate) fn layer_norm(&mut self, x: Value, name: &str, eps: f32) -> Value {
        let weight = self.parameter(name, ParameterShape::Norm { channels: x.channels });
        self.node(name, Op::Layer(Layer::LayerNorm { weight, eps, quantize: false }), &[x], x.channels)
    }

    /// Attention of queries to keys and values.
    pub(crate) fn attention(&mut self, [q, k, v]: [Value; 3], name: &str, settings: Attention) -> Value {
        let Attention { heads, causal, cross } = settings;
        let int8 = self.weights == Format::Int8 && !causal;
        let layer = Layer::Attention { heads, causal, int8, cross: cross && int8, quantize: false };
        self.node(name, Op::Layer(layer), &[q, k, v], q.channels)
    }

    /// `x · factor + offset`.
    pub(crate) fn affine(&mut self, x: Value, name: &str, factor: f32, offset: f32) -> Value {
        self.node(name, Op::Layer(Layer::Affine { factor, offset }), &[x], x.channels)
    }

    /// `limit · tanh(x / limit)`.
    pub(crate) fn soft_clamp(&mut self, x: Value, name: &str, limit: f32) -> Value {
        self.node(name, Op::Layer(Layer::SoftClamp { limit }), &[x], x.channels)
    }

    /// The channels of two values of so many dimensions side by side.
    pub(crate) fn concat(&mut self, a: Value, b: Value, name: &str, dimensions: usize) -> Value {
        self.node(name, Op::Concat { axis: dimensions - 1, first: a.channels }, &[a, b], a.channels + b.channels)
    }

    /// SiLU of `rows`, to each of which the row `row` is added.
    pub(crate) fn add_silu(&mut self, row: Value, rows: Value, name: &str) -> Value {
        self.node(name, Op::Layer(Layer::AddSilu {}), &[row, rows], rows.channels)
    }

    /// Sets a value aside for later, in f16 unless the bundle is exact.
    pub(crate) fn set_aside(&mut self, x: Value, name: &str) -> Value {
        if self.weights == Format::F32 { x } else { self.node(name, Op::ToHalf, &[x], x.channels) }
    }

    /// Takes up a value that was set aside.
    pub(crate) fn take_up(&mut self, x: Value, name: &str) -> Value {
        if self.weights == Format::F32 { x } else { self.node(name, Op::ToFloat, &[x], x.channels) }
    }

    /// The finished network, with `output` as its only output, called `output_name`.
    pub(crate) fn finish(self, name: &'static str, output: Value, output_name: &'static str) -> BuiltNetwork {
        let Builder { inputs, nodes, parameters, .. } = self;
        BuiltNetwork { name, inputs, nodes, output: (output_name, output.id), parameters }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joined_channels_are_convolved_each_for_itself_in_int8() {
        let network = |weights| {
            let mut b = Builder::new(weights);
            let [x, y] =
                ["x", "y"].map(|name| b.input(name, &[Dim::Any("n"), Dim::Any("h"), Dim::Any("w"), Dim::Fixed(8)]));
            let y = b.affine(y, "scaled", 2.0, 0.0);
            let joined = b.concat(x, y, "joined", 4);
            let out = b.pointwise(joined, "short", 4);
            b.finish("net", out, "out").parameters
        };
        let shapes =
            |parameters: &[Parameter]| -> Vec<_> { parameters.iter().map(|p| (p.name.clone(), p.tensors())).collect() };
        let (weight, bias) = (("short.weight".to_owned(), vec![4, 16]), ("short.bias".to_owned(), vec![4]));
        let whole = ("short".to_owned(), vec![weight.clone(), bias]);
        assert_eq!(shapes(&network(Format::F16)), std::slice::from_ref(&whole));
        let parts = network(Format::Int8);
        assert_eq!(shapes(&parts), [whole, ("short.second".to_owned(), vec![weight])]);
        let cut: Vec<_> = parts.iter().map(|part| (part.inputs(), part.part.map(|part| part.first))).collect();
        assert_eq!(cut, [(8, Some(0)), (8, Some(8))]);
    }
}
