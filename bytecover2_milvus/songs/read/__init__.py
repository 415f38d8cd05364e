"""Songs from files: MIDI, MusicXML, POP909, and the traditional melodies that come with the package."""
