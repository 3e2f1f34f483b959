// Bits -> values: what XLA computes from one random word, operation by operation, so that results
// have the same bits. Templated over a lane type `L`, so that CPU vectors and device scalars share
// the text. `L` supplies
//   F, U             float32 and uint32, or float64 and uint64
//   f(x), u(x)       broadcasts; f rounds a double
//   fma, sqrt        fused multiply-add with ONE rounding; square root
//   mul_add(a, b, c) a * b + c as XLA evaluates it there: with one rounding on CPUs, two on GPUs
//   select(m, a, b)  m ? a : b, lane by lane
//   not_above(x, y)  the lanes where x > y does not hold, a bit each
//   max(bound, x)    IEEE maximum of a bound that is no NaN; NaN if x is
//   to_float(i)      exact for |i| < 2^24
//   as_float, as_uint, as_int   reinterpretations of lanes
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

// Range [0, 1), spacing 2^-52, from the high 52 bits of 64.
template <class L>
SEEDBED_HD typename L::F unit_double(typename L::U word) {
  return L::as_float((word >> 12) | 0x3FF0000000000000u) - L::f(1.0);
}

// Range [lo, lo + span], spacing that of the unit range times span, rounded once: `lo` is included,
// and lo + span can be reached by rounding (as in XLA). A NaN in span or lo gives NaN.
template <class L>
SEEDBED_HD typename L::F affine_uniform(typename L::F unit, typename L::F span, typename L::F lo) {
  return L::max(lo, L::mul_add(unit, span, lo));
}

// The span to give to it where L::max may return either zero, and XLA's is +0 if one is. The two
// can meet only if lo is +0 and span is negative; then the result is +0. (`lo` by its bits: where
// subnormals are flushed, one of them would compare equal to zero.)
template <class T>
SEEDBED_HD T proper_span(T span, uint64_t lo_bits) {
  return lo_bits == 0 && span < 0 ? T{0} : span;
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

// log(1 + y) for |y| < sqrt(2) - 1, by Cephes' rational function y - y^2/2 + y^3 P(y)/Q(y), in
// either width.
template <class L>
SEEDBED_HD typename L::F log1p_small(typename L::F y) {
  using F = typename L::F;
  F q = y + L::f(15.062909083469192);
  q = L::fma(q, y, L::f(83.04756596796722));
  q = L::fma(q, y, L::f(221.76239823732857));
  q = L::fma(q, y, L::f(309.09872225312057));
  q = L::fma(q, y, L::f(216.42788614495947));
  q = L::fma(q, y, L::f(60.11866049760384));
  F p = L::fma(y, L::f(4.52700008624452e-5), L::f(0.49854102823193375));
  p = L::fma(p, y, L::f(6.578732594206104));
  p = L::fma(p, y, L::f(29.911919328553072));
  p = L::fma(p, y, L::f(60.94966798098779));
  p = L::fma(p, y, L::f(57.11296359058554));
  p = L::fma(p, y, L::f(20.039553499201283));
  const F y2 = y * y;
  return y + L::fma(y2, L::f(-0.5), (y2 * y) * (p / q));
}

// log(1 + y) for -1 < y <= 0 as XLA:CPU evaluates it, where 1 + y is a normal number.
template <class L>
SEEDBED_HD typename L::F log1p_negative(typename L::F y) {
  return L::select(y > -0.414213568f, log1p_small<L>(y), log_normal_range<L>(y + 1.0f));
}

// Exponential: -log(1 - u) for u in [0, 1): from 0, which is included, to 23 log(2) = 15.94.
template <class L>
SEEDBED_HD typename L::F exponential(typename L::U word) {
  return -log1p_negative<L>(-unit_float<L>(word));
}

// A uniform over [2^-126, 1), where 2^-126, the smallest normal number, stands for 0.
template <class L>
SEEDBED_HD typename L::F positive_float(typename L::U word) {
  return L::max(L::f(1.17549435e-38f), unit_float<L>(word));
}

// Gumbel: -log(-log(u)) for u in (0, 1): from -log(126 log(2)) = -4.47 to 15.94.
template <class L>
SEEDBED_HD typename L::F gumbel(typename L::U word) {
  return -log_normal_range<L>(-log_normal_range<L>(positive_float<L>(word)));
}

// Laplace: sign(u) log(1 - |u|) for u in (-1, 1), never 0: from -15.54 to 16.64.
template <class L>
SEEDBED_HD typename L::F laplace(typename L::U word) {
  using F = typename L::F;
  const F u = affine_uniform<L>(unit_float<L>(word), L::f(2.0f), L::f(-0.99999994f));
  const auto sign = L::as_uint(u) & 0x80000000u;
  const F l = log1p_negative<L>(L::as_float(L::as_uint(u) | 0x80000000u));
  return L::as_float(L::as_uint(l) ^ sign);
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

// Giles' polynomials for erf_inv(x)/x of float64: in t = w - 3.125 for w < 6.25,
template <class L>
SEEDBED_HD typename L::F erf_inv_centre_double(typename L::F t) {
  typename L::F p = L::fma(t, L::f(-3.64441206401782e-21), L::f(-1.6850591381820166e-19));
  p = L::fma(t, p, L::f(1.28584807152564e-18));
  p = L::fma(t, p, L::f(1.1157877678025181e-17));
  p = L::fma(t, p, L::f(-1.333171662854621e-16));
  p = L::fma(t, p, L::f(2.0972767875968562e-17));
  p = L::fma(t, p, L::f(6.637638134358324e-15));
  p = L::fma(t, p, L::f(-4.054566272975207e-14));
  p = L::fma(t, p, L::f(-8.151934197605472e-14));
  p = L::fma(t, p, L::f(2.6335093153082323e-12));
  p = L::fma(t, p, L::f(-1.2975133253453532e-11));
  p = L::fma(t, p, L::f(-5.415412054294628e-11));
  p = L::fma(t, p, L::f(1.0512122733215323e-9));
  p = L::fma(t, p, L::f(-4.112633980346984e-9));
  p = L::fma(t, p, L::f(-2.9070369957882005e-8));
  p = L::fma(t, p, L::f(4.2347877827932404e-7));
  p = L::fma(t, p, L::f(-1.3654692000834679e-6));
  p = L::fma(t, p, L::f(-1.3882523362786469e-5));
  p = L::fma(t, p, L::f(0.00018673420803405714));
  p = L::fma(t, p, L::f(-0.000740702534166267));
  p = L::fma(t, p, L::f(-0.006033670871430149));
  p = L::fma(t, p, L::f(0.24015818242558962));
  return L::fma(t, p, L::f(1.6536545626831027));
}

// in t = sqrt(w) - 3.25 for 6.25 <= w < 16,
template <class L>
SEEDBED_HD typename L::F erf_inv_tail_double(typename L::F t) {
  typename L::F p = L::fma(t, L::f(2.2137376921775787e-9), L::f(9.075656193888539e-8));
  p = L::fma(t, p, L::f(-2.7517406297064545e-7));
  p = L::fma(t, p, L::f(1.8239629214389228e-8));
  p = L::fma(t, p, L::f(1.5027403968909828e-6));
  p = L::fma(t, p, L::f(-4.013867526981546e-6));
  p = L::fma(t, p, L::f(2.9234449089955446e-6));
  p = L::fma(t, p, L::f(1.2475304481671779e-5));
  p = L::fma(t, p, L::f(-4.7318229009055734e-5));
  p = L::fma(t, p, L::f(6.828485145957318e-5));
  p = L::fma(t, p, L::f(2.4031110387097894e-5));
  p = L::fma(t, p, L::f(-0.0003550375203628475));
  p = L::fma(t, p, L::f(0.0009532893797373805));
  p = L::fma(t, p, L::f(-0.0016882755560235047));
  p = L::fma(t, p, L::f(0.002491442096107851));
  p = L::fma(t, p, L::f(-0.003751208507569241));
  p = L::fma(t, p, L::f(0.005370914553590064));
  p = L::fma(t, p, L::f(1.0052589676941592));
  return L::fma(t, p, L::f(3.0838856104922208));
}

// and in t = sqrt(w) - 5 for 16 <= w.
template <class L>
SEEDBED_HD typename L::F erf_inv_far_double(typename L::F t) {
  typename L::F p = L::fma(t, L::f(-2.7109920616438573e-11), L::f(-2.555641816996525e-10));
  p = L::fma(t, p, L::f(1.5076572693500548e-9));
  p = L::fma(t, p, L::f(-3.789465440126737e-9));
  p = L::fma(t, p, L::f(7.61570120807834e-9));
  p = L::fma(t, p, L::f(-1.496002662714924e-8));
  p = L::fma(t, p, L::f(2.914795345090108e-8));
  p = L::fma(t, p, L::f(-6.771199775845234e-8));
  p = L::fma(t, p, L::f(2.2900482228026655e-7));
  p = L::fma(t, p, L::f(-9.9298272942317e-7));
  p = L::fma(t, p, L::f(4.526062597223154e-6));
  p = L::fma(t, p, L::f(-1.968177810553167e-5));
  p = L::fma(t, p, L::f(7.599527703001776e-5));
  p = L::fma(t, p, L::f(-0.00021503011930044477));
  p = L::fma(t, p, L::f(-0.00013871931833623122));
  p = L::fma(t, p, L::f(1.0103004648645344));
  return L::fma(t, p, L::f(4.849906401408584));
}

// The float64 erf_inv takes three steps, since XLA calls the C library's log, a scalar at a time,
// for all that is not near 1. Nothing else will do: its last bits are the library's own.
//   1. log(1 - x^2) in the lanes where -x^2 > near; the others, NaN too, are set in `left`. XLA
//      takes 1 - sqrt(2) for near, and from jaxlib 0.11.1 on what is just below sqrt(1/2) - 1.
template <class L>
SEEDBED_HD typename L::F log_one_minus_square(typename L::F x, typename L::F near, uint64_t& left) {
  const typename L::F y = x * -x;
  left = L::not_above(y, near);
  return log1p_small<L>(y);
}
//   2. The number whose log the caller puts into those lanes.
SEEDBED_HD double one_minus_square(double x) { return x * -x + 1.0; }

//   3a. erf_inv(x) from x and l = log(1 - x^2), where all lanes have l > -6.25,
template <class L>
SEEDBED_HD typename L::F erf_inv_central_double(typename L::F x, typename L::F l) {
  return x * erf_inv_centre_double<L>(L::f(-3.125) - l);
}

//   3b. and anywhere: odd, finite on (-1, 1), +-inf at +-1, NaN beyond and for NaN.
template <class L>
SEEDBED_HD typename L::F erf_inv_double(typename L::F x, typename L::F l) {
  using F = typename L::F;
  const F root = L::sqrt(-l);
  const F centre = erf_inv_centre_double<L>(L::f(-3.125) - l);
  const F tail = erf_inv_tail_double<L>(root - L::f(3.25));
  const F far = erf_inv_far_double<L>(root - L::f(5.0));
  const F p = L::select(l > -6.25, centre, L::select(l > -16.0, tail, far));
  const F value = x * L::select((x == 1.0) | (x == -1.0), L::f(__builtin_inf()), p);
  // The sign of the library's NaN is its own; XLA's result has this one.
  const F beyond = L::as_float(L::u(0xFFF8000000000000u));
  return L::select(x == x, L::select((x > 1.0) | (x < -1.0), beyond, value), x);
}

// log(1 + x) for -1 <= x < 0 as CUDA's libdevice computes it, and by way of it XLA:GPU. (For zeros
// the sign of the result is lost: `erf_inv_gpu` does not use it, `exponential_gpu` restores it.)
// `L` supplies besides
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

// log(x) for a positive normal x as CUDA's libdevice computes it, and by way of it XLA:GPU.
template <class L>
SEEDBED_HD typename L::F log_gpu(typename L::F x) {
  using F = typename L::F;
  // x = (1 + m) * 2^e with m in [-1/3, 1/3).
  const auto shift = (L::as_uint(x) - 0x3F2AAAABu) & 0xFF800000u;
  const F m = L::as_float(L::as_uint(x) - shift) - 1.0f;
  const F e = L::to_float(L::as_int(shift)) * 1.1920929e-7f;
  F p = L::fma(L::f(-1.30188569e-1f), m, L::f(1.40846103e-1f));
  p = L::fma(p, m, L::f(-1.21486276e-1f));
  p = L::fma(p, m, L::f(1.39806107e-1f));
  p = L::fma(p, m, L::f(-1.66842356e-1f));
  p = L::fma(p, m, L::f(2.00122997e-1f));
  p = L::fma(p, m, L::f(-2.49996692e-1f));
  p = L::fma(p, m, L::f(3.33331823e-1f));
  p = L::fma(p, m, L::f(-0.5f));
  return L::fma(e, L::f(6.93147182e-1f), L::fma(m * p, m, m));
}

// The samplers above as XLA:GPU evaluates them: the same functions of its own log and log1p.
template <class L>
SEEDBED_HD typename L::F exponential_gpu(typename L::U word) {
  return 0.0f - log1p_gpu<L>(-unit_float<L>(word));  // +0 for 0, whose log1p has lost its sign
}

template <class L>
SEEDBED_HD typename L::F gumbel_gpu(typename L::U word) {
  return -log_gpu<L>(-log_gpu<L>(positive_float<L>(word)));
}

template <class L>
SEEDBED_HD typename L::F laplace_gpu(typename L::U word) {
  using F = typename L::F;
  const F u = affine_uniform<L>(unit_float<L>(word), L::f(2.0f), L::f(-0.99999994f));
  const auto sign = L::as_uint(u) & 0x80000000u;
  const F l = log1p_gpu<L>(L::as_float(L::as_uint(u) | 0x80000000u));
  return L::as_float(L::as_uint(l) ^ sign);
}

}  // namespace

#endif  // SEEDBED_SAMPLERS_H_
