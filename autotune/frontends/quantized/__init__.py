"""Models quantized to 8 bits: sums of integers where the target has an instruction for them.

Such a model (ONNX's QDQ form) holds real numbers ``scale * (q - zero)`` as bytes ``q``, and says where values
become bytes and real numbers again. A convolution or product of bytes is a sum of integers:

    sum (x - zero) * w * scales = (sum x * w - zero * sum w) * scales

which is exact (Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-
Only Inference, 2018, section 2.2). The instruction takes unsigned bytes by signed ones, so signed tensors are
held 128 higher. Where it does not apply, weights become floats when the model is compiled.

Values become bytes by rounding to even, as ONNX says. By which factor they are multiplied before, or divided,
decides ties only, so that an implementation may be off by a step here and there.
"""
