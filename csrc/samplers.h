// Bits -> values: what XLA computes from one random word, operation by operation, so that results
// have the same bits. Templated over a lane type `L`, so that CPU vectors and device scalars share
// the text. `L` supplies
//   F, U             float32 and uint32
//   f(x), u(x)       broadcasts
//   fma, sqrt        fused multiply-add with ONE rounding; square root
//   mul_add(a, b, c) a * b + c as XLA evaluates it there: with one rounding on CPUs, two on GPUs
//   select(m, a, b)  m ? a : b, lane by lane
//   not_above(x, y)  the lanes where x > y does not hold, a bit each
//   max(bound, x)    IEEE maximum of a bound that is no NaN; NaN if x is
//   to_float(i)      exact for |i| < 2^24
//   as_float, as_uint, as_int   reinterpretations of 32-bit lanes
// Every fused multiply-add is written out; compile with contraction off. The sequences were read
// off what XLA makes: object code for the CPU, PTX for the GPU.
#ifndef SEEDBED_SAMPLERS_H_
#define SEEDBED_SAMPLERS_H_

#include "threefry.h"

namespace {

// Range [0, 1), spacing 2^-23: all 2^23 values are equally likely; 0 is included, 1 is not.
template <class L>
SEEDBED_HD typename L::F unit_float(typename L::U word) {
  return L::as_float((word >> 9) | 0x3F800000u) - 1.0f;
}

// Range [lo, lo + span], spacing that of `unit_float` times span, rounded once: `lo` is included,
// and lo + span can be reached by rounding (as in XLA). A NaN in span or lo gives NaN.
template <class L>
SEEDBED_HD typename L::F affine_uniform(typename L::F unit, typename L::F span, typename L::F lo) {
  return L::max(lo, L::mul_add(unit, span, lo));
}

// log(x) for a positive normal x, by Cephes' logf as XLA:CPU evaluates it.
template <class L>
SEEDBED_HD typename L::F log_normal_range(typename L::F x) {
  using F = typename L::F;
  const auto bits = L::as_uint(x);
  // x = m * 2^e with m in [0.5, 1), then m in [sqrt(0.5), sqrt(2)) - 1.
  F e = L::to_float(L::as_int(bits >> 23) - 126);
  F m = L::as_float((bits & 0x807FFFFFu) | 0x3F000000u);
  const auto low = m < 0.707106769f;
  m = L::select(low, (m - 1.0f) + m, m - 1.0f);
  e = L::select(low, e - 1.0f, e);
  const F m2 = m * m, m3 = m2 * m;
  F y1 = L::fma(m, L::f(7.03768358e-2f), L::f(-1.15146101e-1f));
  F y2 = L::fma(m, L::f(-1.24201410e-1f), L::f(1.42493233e-1f));
  F y3 = L::fma(m, L::f(2.00007141e-1f), L::f(-2.49999940e-1f));
  y1 = L::fma(y1, m, L::f(1.16769984e-1f));
  y2 = L::fma(y2, m, L::f(-1.66680574e-1f));
  y3 = L::fma(y3, m, L::f(3.33333313e-1f));
  F y = L::fma(m3, L::fma(m3, y1, y2), y3);
  y = L::fma(m3, y, e * -2.12194442e-4f);
  m = L::fma(m2, L::f(-0.5f), m);
  return L::fma(e, L::f(6.93359375e-1f), y + m);
}

// log(1 + y) for |y| < sqrt(2) - 1, by Cephes' rational function y - y^2/2 + y^3 P(y)/Q(y).
template <class L>
SEEDBED_HD typename L::F log1p_small(typename L::F y) {
  using F = typename L::F;
  F q = y + 15.0629091f;
  q = L::fma(q, y, L::f(83.0475693f));
  q = L::fma(q, y, L::f(221.762405f));
  q = L::fma(q, y, L::f(309.098724f));
  q = L::fma(q, y, L::f(216.427887f));
  q = L::fma(q, y, L::f(60.1186600f));
  F p = L::fma(y, L::f(4.52700010e-5f), L::f(4.98541027e-1f));
  p = L::fma(p, y, L::f(6.57873249f));
  p = L::fma(p, y, L::f(29.9119186f));
  p = L::fma(p, y, L::f(60.9496689f));
  p = L::fma(p, y, L::f(57.1129646f));
  p = L::fma(p, y, L::f(20.0395527f));
  const F y2 = y * y;
  return y + L::fma(y2, L::f(-0.5f), (y2 * y) * (p / q));
}

// Giles' central polynomial for erf_inv(x)/x in t = w - 2.5, w = -log(1 - x^2) < 5.
template <class L>
SEEDBED_HD typename L::F erf_inv_centre(typename L::F t) {
  typename L::F p = L::mul_add(t, L::f(2.81022636e-8f), L::f(3.43273939e-7f));
  p = L::mul_add(t, p, L::f(-3.52338770e-6f));
  p = L::mul_add(t, p, L::f(-4.39150654e-6f));
  p = L::mul_add(t, p, L::f(2.18580870e-4f));
  p = L::mul_add(t, p, L::f(-1.25372503e-3f));
  p = L::mul_add(t, p, L::f(-4.17768164e-3f));
  p = L::mul_add(t, p, L::f(2.46640727e-1f));
  return L::mul_add(t, p, L::f(1.50140941f));
}

// Giles' tail polynomial for erf_inv(x)/x in t = sqrt(w) - 3, w >= 5.
template <class L>
SEEDBED_HD typename L::F erf_inv_tail(typename L::F t) {
  typename L::F p = L::mul_add(t, L::f(-2.00214257e-4f), L::f(1.00950558e-4f));
  p = L::mul_add(t, p, L::f(1.34934322e-3f));
  p = L::mul_add(t, p, L::f(-3.67342844e-3f));
  p = L::mul_add(t, p, L::f(5.73950773e-3f));
  p = L::mul_add(t, p, L::f(-7.62246130e-3f));
  p = L::mul_add(t, p, L::f(9.43887047e-3f));
  p = L::mul_add(t, p, L::f(1.00167406f));
  return L::mul_add(t, p, L::f(2.83297682f));
}

// erf_inv(x) in the lanes where w < 5, all but about 1 in 300; the others are set in `tails`, with
// a few more. |x| >= 1 and NaN are among them.
template <class L>
SEEDBED_HD typename L::F erf_inv_central(typename L::F x, uint64_t& tails) {
  using F = typename L::F;
  const F y = x * -x;
  const F x1 = y + 1.0f;
  tails = L::not_above(x1, L::f(0.00675f));  // w >= 5 needs 1 - x^2 < e^-5 = 0.00673..
  const F l = L::select(y > -0.414213568f, log1p_small<L>(y), log_normal_range<L>(x1));
  return x * erf_inv_centre<L>(-2.5f - l);
}

// erf_inv(x): odd, finite on (-1, 1), +-inf at +-1, NaN beyond and for NaN.
template <class L>
SEEDBED_HD typename L::F erf_inv(typename L::F x) {
  using F = typename L::F;
  const F y = x * -x;
  const F x1 = y + 1.0f;
  const F tiny = L::f(1.17549435e-38f);
  F l = log_normal_range<L>(L::select(x1 > tiny, x1, tiny));
  l = L::select(x1 > 0.0f, l, L::as_float(L::u(0x7FC00000u)));
  l = L::select(y > -0.414213568f, log1p_small<L>(y), l);
  const F centre = erf_inv_centre<L>(-2.5f - l), tail = erf_inv_tail<L>(L::sqrt(-l) + -3.0f);
  const F p = L::select(l > -5.0f, centre, tail);
  const F value = x * L::select((x == 1.0f) | (x == -1.0f), L::f(__builtin_inff()), p);
  return L::select(x == x, value, x);  // the product of two NaNs may be either
}

// log(1 + x) for -1 <= x < 0 as CUDA's libdevice computes it, and by way of it XLA:GPU. (For zeros
// the sign of the result is lost, which `erf_inv_gpu` does not use.) `L` supplies besides
//   add_toward_zero(a, b)   the sum rounded toward zero
template <class L>
SEEDBED_HD typename L::F log1p_gpu(typename L::F x) {
  using F = typename L::F;
  // 1 + x = (1 + m) * 2^e with m in [-1/4, 1/2), and m = x * 2^-e + (2^-e - 1).
  const auto shift = (L::as_uint(L::add_toward_zero(x, L::f(1.0f))) - 0x3F400000u) & 0xFF800000u;
  const F power = L::as_float(0x40800000u - shift);
  const F m = L::fma(L::f(0.25f), power, L::f(-1.0f)) + L::as_float(L::as_uint(x) - shift);
  const F e = L::to_float(L::as_int(shift)) * 1.1920929e-7f;
  F p = L::fma(L::f(-4.53486145e-2f), m, L::f(1.05468884e-1f));
  p = L::fma(p, m, L::f(-1.32297039e-1f));
  p = L::fma(p, m, L::f(1.44914463e-1f));
  p = L::fma(p, m, L::f(-1.66415647e-1f));
  p = L::fma(p, m, L::f(1.99888676e-1f));
  p = L::fma(p, m, L::f(-2.50001967e-1f));
  p = L::fma(p, m, L::f(3.33335102e-1f));
  p = L::fma(p, m, L::f(-0.5f));
  return L::fma(e, L::f(6.93147182e-1f), L::fma(m * p, m, m));
}

// erf_inv(x) as XLA:GPU evaluates it, one lane at a time: 1 in 300 takes the tail.
template <class L>
SEEDBED_HD typename L::F erf_inv_gpu(typename L::F x) {
  using F = typename L::F;
  const F w = -log1p_gpu<L>(x * -x);
  const F p = w < 5.0f ? erf_inv_centre<L>(w - 2.5f) : erf_inv_tail<L>(L::sqrt(w) - 3.0f);
  return x * (x == 1.0f || x == -1.0f ? __builtin_inff() : p);
}

}  // namespace

#endif  // SEEDBED_SAMPLERS_H_
