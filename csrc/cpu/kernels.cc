// The loops, compiled once per instruction set (SEEDBED_ISA names the namespace of the table).
//
// Everything but the table is in an anonymous namespace, and no library header is included: a
// shared inline function compiled here for AVX-512 could be picked by the linker for a machine
// without it.
#include "kernels.h"

#include "ops.h"

namespace {

using seedbed::Fill;

// Writes n elements, kLanes at a time. The last vector overlaps the one before it, so that nothing
// outside the n elements is touched; fewer than kLanes go through a buffer.
template <class Op, class Block>
SEEDBED_INLINE void write_blocks(const Op&, uint64_t n, char* out, const Block& block) {
  constexpr uint64_t kSize = Op::kSize;
  if (n < kLanes) {
    char buffer[kLanes * kSize];
    block(0, buffer);
    __builtin_memcpy(out, buffer, n * kSize);
    return;
  }
  for (uint64_t i = 0;;) {
    block(i, out + i * kSize);
    i += kLanes;
    if (i + kLanes <= n) continue;
    if (i == n) return;
    i = n - kLanes;
  }
}

// One row, whose elements share the key.
template <class Op>
void fill_row(const Op& op, const Fill& f, uint64_t row, char* out) {
  const bool two = f.low_k0 != nullptr;
  const U32 k0 = Lanes::u(f.k0[row]), low_k0 = Lanes::u(two ? f.low_k0[row] : 0);
  const U32 k1 = Lanes::u(f.k1[row]), low_k1 = Lanes::u(two ? f.low_k1[row] : 0);
  uint64_t counter = f.counter, left = f.count;
  while (left > 0) {  // the high counter word is constant between multiples of 2^32
    const uint64_t until_carry = (uint64_t{1} << 32) - (counter & UINT32_MAX);
    const uint64_t n = left < until_carry ? left : until_carry;
    const U32 c0 = Lanes::u(static_cast<uint32_t>(counter >> 32));
    const uint32_t low = static_cast<uint32_t>(counter);
    write_blocks(op, n, out, [=](uint64_t i, char* to) {
      const U32 c1 = iota() + (low + static_cast<uint32_t>(i));
      op([=](int s) { return threefry2x32(s == 0 ? k0 : low_k0, s == 0 ? k1 : low_k1, c0, c1); },
         to);
    });
    counter += n;
    left -= n;
    out += n * Op::kSize;
  }
}

// Many rows shorter than a vector: each lane has its own key and counter.
template <class Op>
void fill_short_rows(const Op& op, const Fill& f) {
  constexpr int kStage = 512;  // elements
  uint32_t k0[2][kStage + kLanes], k1[2][kStage + kLanes], c1[kStage + kLanes];
  const U32 c0 = Lanes::u(static_cast<uint32_t>(f.counter >> 32));
  const uint32_t low = static_cast<uint32_t>(f.counter);
  const bool two = f.low_k0 != nullptr;
  char* out = static_cast<char*>(f.out);
  for (uint64_t row = 0; row < f.rows;) {
    uint64_t n = 0;
    if (f.count == 1) {
      n = f.rows - row < kStage ? f.rows - row : kStage;
      __builtin_memcpy(k0[0], f.k0 + row, n * sizeof *c1);
      __builtin_memcpy(k1[0], f.k1 + row, n * sizeof *c1);
      if (two) __builtin_memcpy(k0[1], f.low_k0 + row, n * sizeof *c1);
      if (two) __builtin_memcpy(k1[1], f.low_k1 + row, n * sizeof *c1);
      for (uint64_t i = 0; i < n; i += kLanes) store(c1 + i, Lanes::u(low));
      row += n;
    }
    for (; f.count > 1 && row < f.rows && n < kStage; ++row, n += f.count) {
      // What a store writes beyond the row, the next row overwrites.
      store(k0[0] + n, Lanes::u(f.k0[row]));
      store(k1[0] + n, Lanes::u(f.k1[row]));
      if (two) store(k0[1] + n, Lanes::u(f.low_k0[row]));
      if (two) store(k1[1] + n, Lanes::u(f.low_k1[row]));
      store(c1 + n, iota() + low);
    }
    write_blocks(op, n, out, [&](uint64_t i, char* to) {
      const auto words = [&](int s) {
        return threefry2x32(load<U32>(k0[s] + i), load<U32>(k1[s] + i), c0, load<U32>(c1 + i));
      };
      op(words, to);
    });
    out += n * Op::kSize;
  }
}

template <class Op>
void fill_rows(const Op& op, const Fill& f) {
  const bool carries = (f.counter & UINT32_MAX) + f.count > UINT32_MAX;
  if (f.count < kLanes && f.rows > 1 && !carries) return fill_short_rows(op, f);
  char* out = static_cast<char*>(f.out);
  for (uint64_t row = 0; row < f.rows; ++row) {
    fill_row(op, f, row, out);
    out += f.count * Op::kSize;
  }
}

bool is_neutral(float mul, float add) {
  return mul == 1.0f && add == 0.0f && __builtin_signbit(add);
}
bool is_neutral(double mul, double add) {
  return mul == 1.0 && add == 0.0 && __builtin_signbit(add);
}

template <class Visit>
void with_normal(const Sampler& s, const Visit& visit) {
  const bool affine = !is_neutral(param_f32(s, 5), param_f32(s, 6));
  const bool clip = !(param_f32(s, 3) == -__builtin_inff() && param_f32(s, 4) == __builtin_inff());
  if (clip && affine) return visit(NormalF32<true, true>(s));
  if (clip) return visit(NormalF32<true, false>(s));
  if (affine) return visit(NormalF32<false, true>(s));
  visit(NormalF32<false, false>(s));
}

// `out` may be `words`.
template <class Op>
void transform_words(const Op& op, uint64_t n, const char* words, char* out) {
  constexpr uint64_t kItem = sizeof(uint32_t);
  uint64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    store(out + i * kItem, op.transform(load<U32>(words + i * kItem)));
  }
  if (i == n) return;
  U32 rest = {};
  __builtin_memcpy(&rest, words + i * kItem, (n - i) * kItem);
  const F32 values = op.transform(rest);
  __builtin_memcpy(out + i * kItem, &values, (n - i) * kItem);
}

// Words first, then the transform in place, a piece that stays in the L1 cache at a time. Two
// simple loops run faster than one whose constants exceed the registers, and short rows cost the
// transform nothing.
template <class Op>
void fill_staged(const Op& op, const Fill& f) {
  constexpr uint64_t kPiece = 2048;  // elements
  const uint64_t rows_at_once = f.count == 0 || f.count >= kPiece ? 1 : kPiece / f.count;
  char* out = static_cast<char*>(f.out);
  for (uint64_t row = 0; row < f.rows; row += rows_at_once) {
    const uint64_t rows = f.rows - row < rows_at_once ? f.rows - row : rows_at_once;
    for (uint64_t done = 0; done < f.count;) {
      const uint64_t left = f.count - done, count = left < kPiece ? left : kPiece;
      fill_rows(Bits<uint32_t>(), Fill{f.sampler, f.k0 + row, f.k1 + row, nullptr, nullptr, rows,
                                       count, f.counter + done, out});
      transform_words(op, rows * count, out, out);
      out += rows * count * sizeof(uint32_t);
      done += count;
    }
  }
}

template <class Visit>
void with_randint(const Sampler& s, const Visit& visit) {
  if (s.word_bits == 32) {
    if (s.itemsize == 1) return visit(Randint32<uint8_t>(s));
    if (s.itemsize == 2) return visit(Randint32<uint16_t>(s));
    return visit(Randint32<uint32_t>(s));
  }
  if (s.itemsize == 1) return visit(Randint64<uint8_t>(s));
  if (s.itemsize == 2) return visit(Randint64<uint16_t>(s));
  if (s.itemsize == 4) return visit(Randint64<uint32_t>(s));
  visit(Randint64<uint64_t>(s));
}

template <class Visit>
void with_sampler(const Sampler& s, const Visit& visit) {
  switch (s.kind) {
    case Kind::kKey:     // derived, not filled
    case Kind::kNormal:  // with_normal
      return;
    case Kind::kBits:
      if (s.word_bits == 8) return visit(Bits<uint8_t>());
      if (s.word_bits == 16) return visit(Bits<uint16_t>());
      if (s.word_bits == 32) return visit(Bits<uint32_t>());
      return visit(Bits<uint64_t>());
    case Kind::kUniform:
      if (s.word_bits == 32) {
        if (is_neutral(param_f32(s, 2), param_f32(s, 3))) return visit(UniformF32<false>(s));
        return visit(UniformF32<true>(s));
      }
      if (is_neutral(param_f64(s, 2), param_f64(s, 3))) return visit(UniformF64<false>(s));
      return visit(UniformF64<true>(s));
    case Kind::kBernoulli:
      if (s.word_bits == 32) return visit(BernoulliF32(s));
      return visit(BernoulliF64(s));
    case Kind::kRandint:
      return with_randint(s, visit);
    case Kind::kTable:
      if (s.itemsize == 1) return visit(Table<uint8_t>(s));
      if (s.itemsize == 2) return visit(Table<uint16_t>(s));
      return visit(Table<uint32_t>(s));
  }
}

void fill(const Fill& f) {
  if (f.sampler->kind == Kind::kNormal) {
    with_normal(*f.sampler, [&](const auto& op) { fill_staged(op, f); });
  } else {
    with_sampler(*f.sampler, [&](const auto& op) { fill_rows(op, f); });
  }
}

void derive(uint64_t n, const uint32_t* k0, const uint32_t* k1, const uint32_t* c0,
            const uint32_t* c1, uint32_t* o0, uint32_t* o1) {
  uint64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Pair<U32> w =
        threefry2x32(load<U32>(k0 + i), load<U32>(k1 + i), load<U32>(c0 + i), load<U32>(c1 + i));
    store(o0 + i, w.a);
    store(o1 + i, w.b);
  }
  for (; i < n; ++i) {
    const Pair<uint32_t> w = threefry2x32(k0[i], k1[i], c0[i], c1[i]);
    o0[i] = w.a;
    o1[i] = w.b;
  }
}

void transform(uint64_t n, const Sampler& sampler, const uint32_t* words, void* out) {
  with_normal(sampler, [&](const auto& op) {
    transform_words(op, n, reinterpret_cast<const char*>(words), static_cast<char*>(out));
  });
}

#define SEEDBED_STRINGIFY_(x) #x
#define SEEDBED_STRINGIFY(x) SEEDBED_STRINGIFY_(x)

}  // namespace

namespace seedbed::SEEDBED_ISA {
extern const KernelTable table;
const KernelTable table = {SEEDBED_STRINGIFY(SEEDBED_ISA), derive, fill, transform};
}  // namespace seedbed::SEEDBED_ISA
