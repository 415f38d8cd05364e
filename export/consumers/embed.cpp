// Embed recordings with the model.onnx of a bundle, whose metadata holds the contract. It does not resample: the files
// come at the contract's sample rate. Needs ONNX Runtime 1.21 and libsndfile 1.1, or later ones.
//
// c++ -std=c++17 -O2 embed.cpp -o embed $(pkg-config --cflags --libs libonnxruntime sndfile)
// ./embed MODEL.onnx a.wav b.flac ...    a line for each: the numbers of its embedding, then its name
// ./embed MODEL.onnx --chroma a.wav ...  after it, a line for each frame of its chroma (version 1 has none), likewise
#include <onnxruntime_cxx_api.h>
#include <cmath>
#include <cstdlib>
#include <sndfile.hh>

void require(bool fulfilled, const std::string& otherwise) {
  if (!fulfilled) throw std::runtime_error(otherwise);
}

// A number of the contract, or of a field of one of its objects.
double fact(const Ort::Session& session, const char* name, const std::string& field = "") {
  auto value = session.GetModelMetadata().LookupCustomMetadataMapAllocated(name, Ort::AllocatorWithDefaultOptions());
  require(value != nullptr, std::string("the model states no ") + name + ": it is not of a bundle");
  const std::string text = value.get(), key = '"' + field + "\": ";
  return std::stod(field.empty() ? text : text.substr(text.find(key)).substr(key.size()));
}

// The embedding, then the frames of chroma, where the bundle has a second stage.
std::vector<std::vector<float>> hear(Ort::Session& session, const std::string& path) {
  SndfileHandle file(path);
  const int error = file.error(), rate = fact(session, "sample_rate");
  require(!error || error == SF_ERR_UNRECOGNISED_FORMAT, path + ": " + file.strError());
  const bool mpeg = (file.format() & SF_FORMAT_TYPEMASK) == SF_FORMAT_MPEG;  // libsndfile may read a part of it only
  require(!error && !mpeg && file.frames() < SF_COUNT_MAX && file.samplerate() == rate,
          path + ": convert it first: ffmpeg -i IN -ar " + std::to_string(rate) + " OUT.wav");
  const size_t channels = file.channels();
  std::vector<float> frames(file.frames() * channels);
  std::vector<float> waveform(file.readf(frames.data(), file.frames()));
  for (size_t i = 0; i < waveform.size() * channels; i++) waveform[i / channels] += frames[i] / channels;
  float peak = 0;
  for (float sample : waveform) peak = std::isnan(sample) ? INFINITY : std::fmax(peak, std::fabs(sample));
  require(waveform.size() >= fact(session, "shortest_samples"), path + ": too short");
  require(std::isfinite(peak) && peak >= fact(session, "silence_peak"), path + ": silent or damaged");
  const size_t length = waveform.size(), copies = std::ceil(fact(session, "minimum_samples") / length);
  waveform.resize(copies * length);
  for (size_t i = length; i < waveform.size(); i++) waveform[i] = waveform[i - length];
  const int64_t shape[] = {1, int64_t(waveform.size())};
  const auto cpu = Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeDefault);
  const auto input = Ort::Value::CreateTensor<float>(cpu, waveform.data(), waveform.size(), shape, 2);
  const char *in = "waveform", *names[] = {"embedding", "chroma"};
  const auto outputs = session.Run(Ort::RunOptions{}, &in, &input, 1, names, fact(session, "contract_version"));
  std::vector<std::vector<float>> rows;
  const auto add = [&](const Ort::Value& output, size_t n_rows) {
    const size_t width = output.GetTensorTypeAndShapeInfo().GetShape().back();
    for (const float* row = output.GetTensorData<float>(); n_rows--; row += width) rows.push_back({row, row + width});
  };
  add(outputs[0], 1);
  if (outputs.size() == 1) return rows;
  const size_t hop = fact(session, "front_end", "hop_length"), frame_samples = fact(session, "chroma", "frame_samples");
  add(outputs[1], (1 + length / hop) * hop / frame_samples);  // the frames after these are of its copies
  return rows;
}

int main(int argc, char** argv) try {
  const bool chroma = argc > 2 && argv[2] == std::string("--chroma");
  require(argc > 2 + chroma, "usage: embed MODEL.onnx [--chroma] FILE ...");
  setenv("ORT_DISABLE_TELEMETRY", "1", 0);  // unless it is set; read once, when the environment is made
  Ort::Env env(ORT_LOGGING_LEVEL_ERROR);
  Ort::Session session(env, argv[1], Ort::SessionOptions());
  const double version = fact(session, "contract_version");
  require(version == 1 || version == 2, "this program knows contract versions 1 and 2");
  if (chroma && version == 1) std::fprintf(stderr, "%s: contract version 1 has no second stage: no chroma\n", argv[1]);
  for (int i = 2 + chroma; i < argc; i++) {
    auto rows = hear(session, argv[i]);
    if (!chroma) rows.resize(1);
    for (const auto& row : rows) {
      for (float number : row) std::printf("%.9g ", number);
      std::puts(argv[i]);
    }
  }
} catch (const std::exception& error) {
  std::fprintf(stderr, "embed: %s\n", error.what());
  return 1;
}
