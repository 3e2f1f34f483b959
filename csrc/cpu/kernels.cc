// The loops, compiled once per instruction set (SEEDBED_ISA names the namespace of the table).
//
// Everything but the table is in an anonymous namespace, and no library header is included: a
// shared inline function compiled here for AVX-512 could be picked by the linker for a machine
// without it.
#include "cpu/kernels.h"

#include "cpu/rows.h"

namespace {

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
template <Kind kKind>
void transform_piece(const OfWord<kKind>& op, uint64_t n, Piece<uint32_t>& piece, char* out) {
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
      Fill part = rows_of(f, row, rows, piece.words);
      part.count = count, part.counter += done;
      fill_rows(Bits<Word>(), part);
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
