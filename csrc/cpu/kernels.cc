// The loops, compiled once per instruction set (SEEDBED_ISA names the namespace of the table).
//
// Everything but the table is in an anonymous namespace, and no library header is included: a
// shared inline function compiled here for AVX-512 could be picked by the linker for a machine
// without it.
#include "cpu/kernels.h"

#include "cpu/ops.h"

namespace {

using seedbed::Fill;

using QuadU = QuadLanes::U;

// The cipher of a row, whose elements share the key.
struct RowCipher {
  U32 k0, k1, c0;
  uint32_t low;
  template <class Word>
  SEEDBED_INLINE Pair<Word> words(uint64_t i) const {
    return threefry2x32(k0, k1, in_all<Word>(c0), lanes_from<Word>(low + static_cast<uint32_t>(i)));
  }
};

// That of many rows shorter than a vector: each element has its own key and counter.
struct StagedCipher {
  const uint32_t *k0, *k1;
  U32 c0;
  const uint32_t* c1;
  template <class Word>
  SEEDBED_INLINE Pair<Word> words(uint64_t i) const {
    return threefry2x32(load_lanes<Word>(k0 + i), load_lanes<Word>(k1 + i), in_all<Word>(c0),
                        load_lanes<Word>(c1 + i));
  }
};

// Results for one vector of an op, from those for a whole `Word`.
SEEDBED_INLINE Pair<U32> part(const Pair<U32>& w, int) { return w; }
template <class V>
SEEDBED_INLINE Pair<U32> part(const Pair<Twin<V>>& w, int i) {
  constexpr int kHalf = sizeof(V) / kVectorBytes;
  return i < kHalf ? part(Pair<V>{w.a.x, w.b.x}, i) : part(Pair<V>{w.a.y, w.b.y}, i - kHalf);
}

// As many elements from the i-th on as `Word` has lanes. An op with two keys has two ciphers.
template <class Word, class Op, class Ciphers>
SEEDBED_INLINE void write_block(const Op& op, const Ciphers& ciphers, uint64_t i, char* to) {
  const Pair<Word> w = ciphers[0].template words<Word>(i);
  if constexpr (Op::kTwoKeys) {
    const Pair<Word> low = ciphers[1].template words<Word>(i);
    for (int v = 0; v < static_cast<int>(sizeof w.a / kVectorBytes); ++v) {
      op(part(w, v), part(low, v), to + v * kLanes * Op::kSize);
    }
  } else {
    for (int v = 0; v < static_cast<int>(sizeof w.a / kVectorBytes); ++v) {
      op(part(w, v), to + v * kLanes * Op::kSize);
    }
  }
}

// Writes n elements, four vectors at a time. The last vector overlaps the one before it, so that
// nothing outside the n elements is touched; fewer than kLanes go through a buffer.
template <class Op, class Ciphers>
SEEDBED_INLINE void write_blocks(const Op& op, uint64_t n, char* out, const Ciphers& ciphers) {
  constexpr uint64_t kSize = Op::kSize, kGroup = QuadLanes::kCount;
  uint64_t i = 0;
  for (; i + kGroup <= n; i += kGroup) write_block<QuadU>(op, ciphers, i, out + i * kSize);
  char buffer[kLanes * kSize];
  for (; i < n; i += kLanes) {
    if (i + kLanes > n && n >= kLanes) i = n - kLanes;
    write_block<U32>(op, ciphers, i, n < kLanes ? buffer : out + i * kSize);
  }
  if (n < kLanes) __builtin_memcpy(out, buffer, n * kSize);
}

// One row, whose elements share the key.
template <class Op>
void fill_row(const Op& op, const Fill& f, uint64_t row, char* out) {
  RowCipher ciphers[2] = {};
  ciphers[0].k0 = Lanes::u(f.k0[row]), ciphers[0].k1 = Lanes::u(f.k1[row]);
  if constexpr (Op::kTwoKeys) {
    ciphers[1].k0 = Lanes::u(f.low_k0[row]), ciphers[1].k1 = Lanes::u(f.low_k1[row]);
  }
  uint64_t counter = f.counter + (f.starts == nullptr ? 0 : f.starts[row]), left = f.count;
  while (left > 0) {  // the high counter word is constant between multiples of 2^32
    const uint64_t until_carry = (uint64_t{1} << 32) - (counter & UINT32_MAX);
    const uint64_t n = left < until_carry ? left : until_carry;
    for (RowCipher& cipher : ciphers) {
      cipher.c0 = Lanes::u(static_cast<uint32_t>(counter >> 32));
      cipher.low = static_cast<uint32_t>(counter);
    }
    write_blocks(op, n, out, ciphers);
    counter += n;
    left -= n;
    out += n * Op::kSize;
  }
}

// Many rows shorter than a vector.
template <class Op>
void fill_short_rows(const Op& op, const Fill& f) {
  constexpr int kStage = 512;  // elements
  uint32_t k0[2][kStage + kLanes], k1[2][kStage + kLanes], c1[kStage + kLanes];
  const U32 c0 = Lanes::u(static_cast<uint32_t>(f.counter >> 32));
  const uint32_t low = static_cast<uint32_t>(f.counter);
  constexpr bool two = Op::kTwoKeys;
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
    const StagedCipher ciphers[] = {{k0[0], k1[0], c0, c1}, {k0[1], k1[1], c0, c1}};
    write_blocks(op, n, out, ciphers);
    out += n * Op::kSize;
  }
}

template <class Op>
void fill_rows(const Op& op, const Fill& f) {
  const bool carries = (f.counter & UINT32_MAX) + f.count > UINT32_MAX;
  if (f.count < kLanes && f.rows > 1 && !carries && f.starts == nullptr)
    return fill_short_rows(op, f);
  char* out = static_cast<char*>(f.out);
  for (uint64_t row = 0; row < f.rows; ++row) {
    fill_row(op, f, row, out);
    out += f.count * Op::kSize;
  }
}

// Words that wait for their transform, few enough that the L1 cache holds them and the results.
template <class Word>
struct Piece {
  static constexpr uint64_t kSize = 8192 / sizeof(Word);
  alignas(64) Word words[kSize];
};

// The positions of the bits that are set among the first n, and their number.
inline uint64_t positions(const uint64_t* flags, uint64_t n, uint16_t* at) {
  uint64_t count = 0;
  for (uint64_t i = 0; i < n; i += 64) {
    for (uint64_t bits = flags[i / 64]; bits != 0; bits &= bits - 1) {
      at[count++] = static_cast<uint16_t>(i + static_cast<uint64_t>(__builtin_ctzll(bits)));
    }
  }
  return count;
}

// The transform of the first n words. Four vectors at a time go through the part that nearly all
// lanes need; the rest are noted, gathered and done again.
template <bool kClip, bool kAffine>
void transform_piece(const NormalF32<kClip, kAffine>& op, uint64_t n, Piece<uint32_t>& piece,
                     char* out) {
  constexpr uint64_t kItem = sizeof(uint32_t), kGroup = QuadLanes::kCount;
  const uint64_t whole = n / kGroup * kGroup;
  uint64_t tails[Piece<uint32_t>::kSize / 64] = {};  // a bit for each element
  const auto group = [&](uint64_t i, char* to) {
    uint64_t bits;
    store(to, op.template central<QuadLanes>(load_lanes<QuadU>(piece.words + i), bits));
    __builtin_memcpy(reinterpret_cast<char*>(tails) + i / 8, &bits, kGroup / 8);
  };
  for (uint64_t i = 0; i < whole; i += kGroup) group(i, out + i * kItem);
  if (whole < n) {
    char rest[kGroup * kItem];
    __builtin_memset(piece.words + n, 0, (whole + kGroup - n) * kItem);
    group(whole, rest);
    __builtin_memcpy(out + whole * kItem, rest, (n - whole) * kItem);
    tails[n / 64] &= (uint64_t{1} << n % 64) - 1;
  }
  uint16_t at[Piece<uint32_t>::kSize];
  const uint64_t count = positions(tails, n, at);
  for (uint64_t j = 0; j < count; j += kLanes) {
    const uint64_t lanes = count - j < kLanes ? count - j : kLanes;
    U32 words = {};
    for (uint64_t lane = 0; lane < lanes; ++lane) words[lane] = piece.words[at[j + lane]];
    const F32 values = op.template transform<Lanes>(words);
    for (uint64_t lane = 0; lane < lanes; ++lane) {
      const float value = values[lane];
      __builtin_memcpy(out + at[j + lane] * kItem, &value, kItem);
    }
  }
}

// In float64 a third of the lanes need the C library's log, which takes one number at a time. The
// uniforms replace the words meanwhile.
template <bool kClip, bool kAffine>
void transform_piece(const NormalF64<kClip, kAffine>& op, uint64_t n, Piece<uint64_t>& piece,
                     char* out) {
  using Group = QuadDoubles;
  constexpr uint64_t kItem = sizeof(uint64_t), kGroup = Group::kCount;
  const uint64_t padded = (n + kGroup - 1) / kGroup * kGroup;
  alignas(64) double logs[Piece<uint64_t>::kSize];
  uint64_t left[Piece<uint64_t>::kSize / 64] = {};  // a bit for each element
  __builtin_memset(piece.words + n, 0, (padded - n) * kItem);
  for (uint64_t i = 0; i < padded; i += kGroup) {
    uint64_t bits;
    typename Group::F log;
    const auto words = load_lanes<typename Group::U>(piece.words + i);
    const auto uniforms = op.template begin<Group>(words, log, bits);
    store(piece.words + i, uniforms);
    store(logs + i, log);
    __builtin_memcpy(reinterpret_cast<char*>(left) + i / 8, &bits, kGroup / 8);
  }
  uint16_t at[Piece<uint64_t>::kSize];
  const uint64_t count = positions(left, padded, at);
  for (uint64_t j = 0; j < count; ++j) {
    double x;
    __builtin_memcpy(&x, piece.words + at[j], kItem);
    logs[at[j]] = __builtin_log(one_minus_square(x));
  }
  const auto values = [&](uint64_t i) {
    return op.template end<Group>(load_lanes<typename Group::F>(piece.words + i),
                                  load_lanes<typename Group::F>(logs + i));
  };
  const uint64_t whole = n / kGroup * kGroup;
  for (uint64_t i = 0; i < whole; i += kGroup) store(out + i * kItem, values(i));
  if (whole < n) {
    char rest[kGroup * kItem];
    store(rest, values(whole));
    __builtin_memcpy(out + whole * kItem, rest, (n - whole) * kItem);
  }
}

// All lanes take the same way, so there is nothing to gather.
template <Kind kKind, bool kAffine>
void transform_piece(const OfWord<kKind, kAffine>& op, uint64_t n, Piece<uint32_t>& piece,
                     char* out) {
  constexpr uint64_t kItem = sizeof(uint32_t), kGroup = QuadLanes::kCount;
  const uint64_t whole = n / kGroup * kGroup;
  const auto values = [&](uint64_t i) {
    return op.template transform<QuadLanes>(load_lanes<QuadU>(piece.words + i));
  };
  for (uint64_t i = 0; i < whole; i += kGroup) store(out + i * kItem, values(i));
  if (whole < n) {
    char rest[kGroup * kItem];
    __builtin_memset(piece.words + n, 0, (whole + kGroup - n) * kItem);
    store(rest, values(whole));
    __builtin_memcpy(out + whole * kItem, rest, (n - whole) * kItem);
  }
}

// Words first, then the transform, a piece at a time. Two simple loops run faster than one whose
// constants exceed the registers, and short rows cost the transform nothing.
template <class Op>
void fill_staged(const Op& op, const Fill& f) {
  using Word = typename Op::Word;
  Piece<Word> piece;
  const uint64_t rows_at_once = f.count == 0 || f.count >= piece.kSize ? 1 : piece.kSize / f.count;
  char* out = static_cast<char*>(f.out);
  for (uint64_t row = 0; row < f.rows; row += rows_at_once) {
    const uint64_t rows = f.rows - row < rows_at_once ? f.rows - row : rows_at_once;
    for (uint64_t done = 0; done < f.count;) {
      const uint64_t left = f.count - done, count = left < piece.kSize ? left : piece.kSize;
      const uint64_t* const starts = f.starts == nullptr ? nullptr : f.starts + row;
      fill_rows(Bits<Word>(), Fill{f.sampler, f.k0 + row, f.k1 + row, nullptr, nullptr, rows, count,
                                   f.counter + done, piece.words, starts});
      transform_piece(op, rows * count, piece, out);
      out += rows * count * sizeof(Word);
      done += count;
    }
  }
}

template <class Op>
void fill_with(const Op& op, const Fill& f) {
  if constexpr (Op::kStaged) {
    fill_staged(op, f);
  } else {
    fill_rows(op, f);
  }
}

void fill(const Fill& f) {
  with_operation(Operations(), *f.sampler, [&](const auto& op) { fill_with(op, f); });
}

void derive(uint64_t n, const uint32_t* k0, const uint32_t* k1, const uint32_t* c0,
            const uint32_t* c1, uint32_t* o0, uint32_t* o1) {
  uint64_t i = 0;
  for (; i + QuadLanes::kCount <= n; i += QuadLanes::kCount) {
    const Pair<QuadU> w = threefry2x32(load_lanes<QuadU>(k0 + i), load_lanes<QuadU>(k1 + i),
                                       load_lanes<QuadU>(c0 + i), load_lanes<QuadU>(c1 + i));
    store(o0 + i, w.a);
    store(o1 + i, w.b);
  }
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

// The pairs of words that give these kLanes words of 32 or 64 bits.
template <int kWordBits>
Pair<U32> pairs_of(const char* words) {
  if constexpr (kWordBits == 32) {
    return {load<U32>(words), U32{}};
  } else {
    const U64 shift = U64{} + 32, x = load<U64>(words), y = load<U64>(words + kVectorBytes);
    return {even(reinterpret<U32>(x >> shift), reinterpret<U32>(y >> shift)),
            even(reinterpret<U32>(x), reinterpret<U32>(y))};
  }
}

template <class Op>
void transform_words(const Op& op, uint64_t n, const char* words, char* out) {
  constexpr uint64_t kWord = Op::kWordBits / 8;
  if constexpr (Op::kStaged) {
    Piece<typename Op::Word> piece;
    for (uint64_t i = 0; i < n; i += piece.kSize) {
      const uint64_t count = n - i < piece.kSize ? n - i : piece.kSize;
      __builtin_memcpy(piece.words, words + i * kWord, count * kWord);
      transform_piece(op, count, piece, out + i * Op::kSize);
    }
  } else if constexpr (Op::kWordBits >= 32 && !Op::kTwoKeys) {
    char in[kLanes * kWord] = {}, made[kLanes * Op::kSize];
    for (uint64_t i = 0; i < n; i += kLanes) {
      const uint64_t count = n - i < kLanes ? n - i : kLanes;
      __builtin_memcpy(in, words + i * kWord, count * kWord);
      op(pairs_of<Op::kWordBits>(in), made);
      __builtin_memcpy(out + i * Op::kSize, made, count * Op::kSize);
    }
  }
}

void transform(uint64_t n, const Sampler& sampler, const void* words, void* out) {
  with_operation(Operations(), sampler, [&](const auto& op) {
    transform_words(op, n, static_cast<const char*>(words), static_cast<char*>(out));
  });
}

}  // namespace

namespace seedbed::SEEDBED_ISA {
extern const KernelTable table;
const KernelTable table = {SEEDBED_STRINGIFY(SEEDBED_ISA), derive, fill, transform};
}  // namespace seedbed::SEEDBED_ISA
