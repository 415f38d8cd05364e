// Embed recordings with the model.onnx of a bundle, whose metadata holds the contract. It does not resample: the files
// come at the contract's sample rate. Needs ONNX Runtime 1.21 and libsndfile 1.1, or later ones.
//
// c++ -std=c++17 -O2 embed.cpp -o embed $(pkg-config --cflags --libs libonnxruntime sndfile)
// ./embed MODEL.onnx a.wav b.flac ...    a line for each: the numbers of its embedding, then its name
#include <onnxruntime_cxx_api.h>
#include <cmath>
#include <cstdlib>
#include <sndfile.hh>

void require(bool fulfilled, const std::string& otherwise) {
  if (!fulfilled) throw std::runtime_error(otherwise);
}

double fact(const Ort::Session& session, const char* name) {
  auto value = session.GetModelMetadata().LookupCustomMetadataMapAllocated(name, Ort::AllocatorWithDefaultOptions());
  require(value != nullptr, std::string("the model states no ") + name + ": it is not of a bundle");
  return std::stod(value.get());
}

std::vector<float> embed(Ort::Session& session, const std::string& path) {
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
  const char *in = "waveform", *out = "embedding";
  const auto outputs = session.Run(Ort::RunOptions{}, &in, &input, 1, &out, 1);
  const float* embedding = outputs[0].GetTensorData<float>();
  return {embedding, embedding + outputs[0].GetTensorTypeAndShapeInfo().GetElementCount()};
}

int main(int argc, char** argv) try {
  require(argc > 2, "usage: embed MODEL.onnx FILE ...");
  setenv("ORT_DISABLE_TELEMETRY", "1", 0);  // unless it is set; read once, when the environment is made
  Ort::Env env(ORT_LOGGING_LEVEL_ERROR);
  Ort::Session session(env, argv[1], Ort::SessionOptions());
  require(fact(session, "contract_version") == 1, "this program knows contract version 1");
  for (int i = 2; i < argc; i++) {
    for (float number : embed(session, argv[i])) std::printf("%.9g ", number);
    std::puts(argv[i]);
  }
} catch (const std::exception& error) {
  std::fprintf(stderr, "embed: %s\n", error.what());
  return 1;
}
